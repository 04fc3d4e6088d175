"""Model versions: import, seal, describe, load."""
