"""Where am I? The Platform protocol, Gramine's /dev/attestation, and the simulated platform."""
