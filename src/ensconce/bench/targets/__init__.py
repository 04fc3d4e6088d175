"""Whom requests go to: a dialect says what is in them, a carrier takes them there."""
