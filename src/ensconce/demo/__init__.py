"""The whole story on one machine: owner, host and client, then the attacks, then what the host could see."""
