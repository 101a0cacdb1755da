"""Find candidates that installed distributions offer."""
