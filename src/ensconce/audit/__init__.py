"""A hash-chained, signed log with Merkle inclusion and consistency proofs (RFC 9162)."""

from ensconce.audit.entry import Entry, FieldValue
from ensconce.audit.head import Head
from ensconce.audit.log import AuditLog
from ensconce.audit.verify import read_entries, verify_log

__all__ = ["AuditLog", "Entry", "FieldValue", "Head", "read_entries", "verify_log"]
