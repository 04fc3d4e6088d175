"""Custody of the owner's secrets behind one protocol.

``Keystore`` is the protocol; ``FileKeystore`` keeps everything in one sealed file on the owner's machine. Asymmetric
keys go in and out as ``cryptography`` objects through ``put_private_key`` and ``get_private_key``.
"""

from ensconce.keys.file import FileKeystore
from ensconce.keys.keystore import KeyEntry, Keystore, Kind
from ensconce.keys.private import get_private_key, put_private_key
from ensconce.keys.unlock import KeyFile, Passphrase, Unlock, new_key_file

__all__ = [
    "FileKeystore",
    "KeyEntry",
    "KeyFile",
    "Keystore",
    "Kind",
    "Passphrase",
    "Unlock",
    "get_private_key",
    "new_key_file",
    "put_private_key",
]
