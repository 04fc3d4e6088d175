"""Serving, measured side by side: ``python -m benchmarks.serving --help``."""
