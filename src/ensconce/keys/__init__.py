"""Custody of the owner's secrets behind one protocol.

``Keystore`` is the protocol. ``SealedKeystore`` keeps everything in one sealed document, in a folder or in a store that
servers share; a passphrase, a key file, HashiCorp Vault or AWS KMS opens it. Asymmetric keys go in and out as
``cryptography`` objects through ``put_private_key`` and ``get_private_key``.
"""

from ensconce.keys.keystore import KeyEntry, Keystore, Kind
from ensconce.keys.memory import Protection, SecretBuffer, forbid_core_dumps, protect_process
from ensconce.keys.place import FolderPlace, Place, StorePlace
from ensconce.keys.private import get_private_key, put_private_key
from ensconce.keys.sealed_keystore import SealedKeystore
from ensconce.keys.unlock import KeyFile, KeyService, Passphrase, Unlock, new_key_file

__all__ = [
    "FolderPlace",
    "KeyEntry",
    "KeyFile",
    "KeyService",
    "Keystore",
    "Kind",
    "Passphrase",
    "Place",
    "Protection",
    "SealedKeystore",
    "SecretBuffer",
    "StorePlace",
    "Unlock",
    "forbid_core_dumps",
    "get_private_key",
    "new_key_file",
    "protect_process",
    "put_private_key",
]
