"""``ensconce file``: encrypt and decrypt files and folders in the format that Gramine reads and writes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ensconce.cli.output import print_json, progress_bar, say
from ensconce.errors import InputError

if TYPE_CHECKING:
    from ensconce.encfile import Format

__all__ = ["app", "decrypt", "encrypt"]

app = typer.Typer(no_args_is_help=True, help="Encrypt and decrypt files and folders, in Gramine's format.")


class _Format(StrEnum):
    V1 = "1"
    V2 = "2"


_FORMATS: Final[dict[_Format, Format]] = {_Format.V1: 1, _Format.V2: 2}

_WrapKey = Annotated[Path, typer.Option("--wrap-key", "-w", metavar="KEYFILE", help="The key: a file of 16 raw bytes.")]
_Input = Annotated[Path, typer.Option("--input", "-i", metavar="IN", help="The file or folder to read.")]
_Output = Annotated[
    str, typer.Option("--output", "-o", metavar="OUT", help="Where to write; a folder must be new, or empty.")
]


@app.command()
def encrypt(
    wrap_key: _WrapKey,
    source: _Input,
    output: _Output,
    path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH_TO_EMBED",
            help="The path that Gramine will open the file under (what follows file: in the manifest's uri). "
            "OUT as you type it, unless given. For a folder: the path of the folder.",
        ),
    ] = None,
    format: Annotated[
        _Format, typer.Option(metavar="1|2", help="2 for Gramine 1.9 and later, 1 for every release.")
    ] = _Format.V2,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")] = False,
) -> None:
    """Encrypt a file, or every file of a folder.

    Each file holds the path that it will be opened under, and opens under no other.

    OUT appears when all is done, or not at all.

    Examples:

      head -c 16 /dev/urandom > wrap.key

      ensconce file encrypt -w wrap.key -i model.bin -o models/digits/1/model.bin

      ensconce file encrypt -w wrap.key -i saved/ -o out/ --path models/digits/1 --format 1
    """
    from ensconce import encfile
    from ensconce.encfile.names import path_bytes, shown
    from ensconce.encfile.tree import scan_tree

    key = encfile.read_wrap_key(wrap_key)
    embedded = output if path is None else path
    target = _target(output)
    if source.is_dir():
        with progress_bar("encrypting", scan_tree(source).size) as bar:
            made = encfile.encrypt_tree(
                source, target, key, embedded_root=embedded, format=_FORMATS[format], progress=bar
            )
        if json:
            fingerprints = {name: mark.hex() for name, mark in made.items()}
            print_json({"path": encfile.normal_path(embedded), "fingerprints": fingerprints})
            return
        say(f"files        {len(made)}")
        say(f"path inside  {shown(encfile.normal_path(embedded + '/*'))}")
        return
    with progress_bar("encrypting", _size(source)) as bar:
        mark = encfile.encrypt_file(source, target, key, embedded_path=embedded, format=_FORMATS[format], progress=bar)
    if json:
        print_json({"path": encfile.normal_path(embedded), "fingerprint": mark.hex()})
        return
    say(f"path inside  {shown(path_bytes(embedded))}")
    say(f"fingerprint  {mark.hex()}")


@app.command()
def decrypt(
    wrap_key: _WrapKey,
    source: _Input,
    output: _Output,
    verify_path: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Refuse a file that was made for another path. Any path is accepted unless given. "
            "For a folder: the path of the folder.",
        ),
    ] = None,
) -> None:
    """Decrypt a file, or every file of a folder, of either version of the format.

    OUT appears when every byte was verified, or not at all, and only you can read it.

    Exit status 6 says that the key is wrong or something was changed; the message says what and where.

    Examples:

      ensconce file decrypt -w wrap.key -i models/digits/1/model.bin -o model.bin

      ensconce file decrypt -w wrap.key -i out/ -o saved/ --verify-path models/digits/1
    """
    from ensconce import encfile
    from ensconce.encfile.tree import scan_tree

    key = encfile.read_wrap_key(wrap_key)
    target = _target(output)
    if source.is_dir():
        with progress_bar("decrypting", scan_tree(source).size) as bar:
            encfile.decrypt_tree(source, target, key, verify_root=verify_path, progress=bar)
        return
    with progress_bar("decrypting", _size(source)) as bar:
        encfile.decrypt_file(source, target, key, verify_path=verify_path, progress=bar)


def _target(output: str) -> Path:
    if not output:
        raise InputError("encfile.output", "the output has no name", remedy="name a file: -o OUT")
    return Path(output)


def _size(path: Path) -> int:
    """For the progress bar only; what cannot be read is told by whoever opens it."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
