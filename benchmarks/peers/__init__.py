"""Oneiric beside other libraries, each in an environment of its own: ``python -m benchmarks --only peers``."""
