"""What is wrong now: pure rules over one look at everything, each ending in what to type."""
