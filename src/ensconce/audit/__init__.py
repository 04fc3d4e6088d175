"""A hash-chained log with Merkle inclusion and consistency proofs."""
