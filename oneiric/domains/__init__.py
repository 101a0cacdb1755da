"""What a domain adds to the engine."""
