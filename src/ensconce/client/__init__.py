"""The client's side: attested TLS, tunnel, predictions."""
