"""What runs inside: image, Gramine manifest, lint, signature, and the replica's own program."""
