"""The client's side: attested TLS, tunnel, predictions.

Nothing is sent to a server before its evidence was accepted, on any connection.
"""
