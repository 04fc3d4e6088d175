"""Published measurements as a file: what a publisher signed, and where it is in the publisher's log."""
