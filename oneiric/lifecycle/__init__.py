"""Build, probe, lease, swap, drain and clean up instances."""
