"""Benchmarks: figures to print and compare, never timed pass or fail."""
