"""What Oneiric costs, each figure against a named baseline: ``python -m benchmarks``."""
