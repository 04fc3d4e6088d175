"""The part of the deployment file that is about what opens the keystore."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from ensconce.appraisal import strict_yaml
from ensconce.keys.aws_kms import AwsKms
from ensconce.keys.unlock import KeyFile, KeyService, Passphrase
from ensconce.strict import StrictModel

__all__ = [
    "AwsKmsEntry",
    "FileEntry",
    "FilePath",
    "KeystoreEntry",
    "PassphraseEntry",
    "VaultEntry",
    "read_entry",
    "replaced_in",
    "unlock_of",
]

# YAML can write any character, and the system takes no path with a NUL.
FilePath = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=4096)]
_Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=500)]


class FileEntry(StrictModel):
    """The file ``unlock.key`` in the owner's folder."""

    kind: Literal["file"] = "file"


class PassphraseEntry(StrictModel):
    """A passphrase, asked for at the terminal by each command that needs the keystore."""

    kind: Literal["passphrase"]


class VaultEntry(StrictModel):
    """A transit key of HashiCorp Vault or OpenBao; relative paths are the owner folder's."""

    kind: Literal["vault"]
    address: _Url
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=200)]
    token_file: FilePath
    mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_./-]*$", max_length=200)] = "transit"
    ca_file: FilePath | None = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_./-]*$", max_length=200)] | None = None


class AwsKmsEntry(StrictModel):
    """A symmetric key of AWS KMS; credentials come from where boto3 finds them."""

    kind: Literal["aws-kms"]
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_-]+$", max_length=2048)]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$", max_length=50)]
    endpoint_url: _Url | None = None


KeystoreEntry = Annotated[FileEntry | PassphraseEntry | VaultEntry | AwsKmsEntry, Field(discriminator="kind")]


def unlock_of(entry: KeystoreEntry, folder: Path, ask: Callable[[str], str]) -> KeyFile | Passphrase | KeyService:
    """What opens the keystore, as the deployment file has it.

    Args:
        entry: from the file.
        folder: the owner's folder.
        ask: gives the passphrase, when there is one to be asked for; is told what to say.
    """
    match entry:
        case FileEntry():
            return KeyFile(folder / "unlock.key")
        case PassphraseEntry():
            return Passphrase(ask("Passphrase of the keystore: "))
        case VaultEntry():
            from ensconce.keys.vault import VaultTransit  # httpx takes long to load

            return VaultTransit(
                address=entry.address,
                key=entry.key,
                token_file=folder / entry.token_file,
                mount=entry.mount,
                ca_file=None if entry.ca_file is None else folder / entry.ca_file,
                namespace=entry.namespace,
            )
        case AwsKmsEntry():
            return AwsKms(entry.key_id, entry.region, entry.endpoint_url)


class _File(StrictModel):
    keystore: KeystoreEntry


def read_entry(word: str) -> KeystoreEntry:
    """What a command is told to open the keystore with from now on.

    Args:
        word: ``file``, ``passphrase``, or the path of a YAML file that holds the block ``keystore:`` of a deployment
            file, and nothing else.

    Raises:
        InputError: the file cannot be read, or does not describe anything that opens a keystore.
    """
    if word == "file":
        return FileEntry()
    if word == "passphrase":
        return PassphraseEntry(kind="passphrase")
    return strict_yaml.load(Path(word), _File).keystore


def replaced_in(text: str, entry: KeystoreEntry | None) -> str:
    """The deployment file's text with another ``keystore:`` block, or with none; everything else stays as it is.

    Only a block as ``ensconce`` writes it, or an editor with usual habits, is recognised: from a line that begins with
    ``keystore:`` up to the next that begins at the margin. The caller reads the result and compares.
    """
    lines = text.splitlines(keepends=True)
    start = next((at for at, line in enumerate(lines) if line.startswith("keystore:")), len(lines))
    end = min(start + 1, len(lines))
    while end < len(lines) and lines[end][:1] in (" ", "\t"):
        end += 1
    block = ""
    if entry is not None:
        block = yaml.safe_dump({"keystore": entry.model_dump(exclude_none=True)}, sort_keys=False)
    if start == len(lines) and lines and not lines[-1].endswith("\n"):
        block = "\n" + block
    return "".join(lines[:start]) + block + "".join(lines[end:])
