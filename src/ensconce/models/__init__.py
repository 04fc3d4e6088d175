"""Model versions: seal, describe, load."""
