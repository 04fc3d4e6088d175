"""``ensconce dashboard``: a page about a deployment, for whoever has the token. It reads, and changes nothing."""
