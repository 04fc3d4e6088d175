"""Certificates that carry evidence, TLS contexts that judge them, and channel-bound proof."""
