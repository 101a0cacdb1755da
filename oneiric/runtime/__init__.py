"""The composition root, the daemon and what they remember."""
