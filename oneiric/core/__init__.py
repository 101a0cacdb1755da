"""Decisions: pure functions and immutable values. No I/O, no clock, no environment, no await."""
