"""What several provisioning servers share: documents replaced whole, and an append-only log; a folder or a database."""
