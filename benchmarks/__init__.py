"""Benchmarks, each run as ``python -m benchmarks.NAME``; the method is written at the top of each file."""
