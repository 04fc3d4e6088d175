"""Gramine's encrypted-file format, versions 1 and 2, streaming.

A file is a tree of 4096-byte nodes, each sealed with AES-128-GCM under a fresh random key; the first node, the
metadata node, is sealed under a key derived from the 16-byte *wrap key* and commits to all the others. The format
is Gramine's (``common/src/protected_files``); ``docs/reference/encrypted-files.md`` has the layout.

* :func:`encrypt_file`, :func:`decrypt_file`: one file, in bounded memory, whatever its size.
* :func:`decrypt_bytes`, :func:`decrypt_to_memory`: into memory, for the process inside an enclave: nothing is
  written, no process is started.
* :func:`encrypt_tree`, :func:`decrypt_tree`: directories, all or nothing.
* :func:`fingerprint`: names one encryption of one file; :func:`read_wrap_key`: the key from its file.

Nothing is returned or left under its final name before every node was verified.
"""

from __future__ import annotations

from ensconce.encfile.decrypt import decrypt_bytes, decrypt_file, decrypt_to_memory
from ensconce.encfile.encrypt import encrypt_file
from ensconce.encfile.layout import Format, encrypted_size
from ensconce.encfile.metadata import Fingerprint, fingerprint
from ensconce.encfile.names import normal_path
from ensconce.encfile.tree import decrypt_tree, encrypt_tree
from ensconce.encfile.wrapkey import WRAP_KEY_SIZE, read_wrap_key

__all__ = [
    "WRAP_KEY_SIZE",
    "Fingerprint",
    "Format",
    "decrypt_bytes",
    "decrypt_file",
    "decrypt_to_memory",
    "decrypt_tree",
    "encrypt_file",
    "encrypt_tree",
    "encrypted_size",
    "fingerprint",
    "normal_path",
    "read_wrap_key",
]
