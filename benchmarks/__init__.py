"""Benchmarks: `python -m benchmarks [NAME …]`, or `make bench`. They measure real parts."""
