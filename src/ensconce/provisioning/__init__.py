"""The secret provisioning server, and the enclave's side of it."""
