"""Bytes to frozen dataclasses, bounded, without an opinion: quotes, reports, SIGSTRUCTs, RA-TLS evidence."""
