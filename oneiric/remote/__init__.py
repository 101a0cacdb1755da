"""Signed remote delivery: fetch, verify, cache, register."""
