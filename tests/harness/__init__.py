"""What tests share: real processes, started and stopped exactly."""
