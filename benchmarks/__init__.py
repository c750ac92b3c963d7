"""Benchmarks whose figures are committed with the code that made them."""
