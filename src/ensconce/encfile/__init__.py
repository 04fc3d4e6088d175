"""Gramine's encrypted-file format, versions 1 and 2, streaming."""
