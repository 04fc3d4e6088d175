"""Custody of the owner's secrets behind one protocol."""
