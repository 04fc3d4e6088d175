"""``ensconce model pull``: the host's side of a model, ciphertext from where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, progress_bar, say
from ensconce.errors import InputError

__all__ = ["pull_model"]


def pull_model(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="What a bundle's models/ lies at: https, http, file, s3, gs ...")
    ],
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder models/ here.")],
    model: Annotated[list[str], typer.Option("--model", metavar="NAME/VERSION", help="May be given several times.")],
    owner_key: Annotated[Path, typer.Option("--owner-key", help="The owner's public key: owner.pub of the bundle.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Fetch sealed versions, each whole or not at all, as the owner's signed description has them.

    It is ciphertext: no key is asked for, and none is needed. Exit status: 6 when it is not what the owner described,
    5 when it cannot be fetched.

    Examples:

    \b
      ensconce model pull https://models.example.test/digits models \\
        --model digits/1 --owner-key owner.pub
    """
    from ensconce.models.pull import load_owner_key, pull
    from ensconce.models.remote import open_remote

    wanted = [_version(text) for text in model]
    key, remote = load_owner_key(owner_key), open_remote(url)
    fetched = []
    for name, version in wanted:
        with progress_bar(f"fetching {name}/{version}", 0) as progress:
            fetched.append(pull(remote, dest, name=name, version=version, owner_key=key, progress=progress))
    if json:
        print_json([description.to_json_object() for description in fetched])
        return
    for description in fetched:
        size = sum(file.encrypted_size for file in description.files)
        say(f"{description.name}/{description.version}: {len(description.files)} files, {size} bytes")


def _version(text: str) -> tuple[str, int]:
    name, _, number = text.partition("/")
    if not number.isascii() or not number.isdecimal() or len(number) > 10 or not name:
        raise InputError("pull.model", "this is no version of a model", found=ascii(text)[:100], rule="NAME/VERSION")
    return name, int(number)
