"""Scale, simulated from service times that are measured first: ``python -m benchmarks.scaling --help``."""
