"""Benchmarks of speed. Each measures alternatives in turns and saves its results, with the machine, in `results/`."""
