"""``ensconce key``: the owner's keystore: secrets, what opens it, backup and recovery."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ensconce.cli.output import print_json, print_table, remark, say, with_times
from ensconce.cli.owner import Owner, protect
from ensconce.errors import InputError

__all__ = ["app"]

app = typer.Typer(help="The owner's keystore.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="Such as model/digits/1 or secret/license.")]

_HERE = Path()
_CLEAR = "\x1b[2J\x1b[3J\x1b[H"


app.callback()(protect)


@app.command("put")
def put(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="secret/NAME.")],
    source: Annotated[str, typer.Option("--from", help="The file that holds the secret; - for standard input.")],
    owner: Owner = _HERE,
    json: Json = False,
) -> None:
    """Store a secret that enclaves may receive, every byte of it as it is, a newline at the end too.

    A policy gives it away under `receives: [secret/NAME]`.

    Examples:

      ensconce key put secret/license --from license.bin

      printf %s "$PASSWORD" | ensconce key put secret/database --from -
    """
    from ensconce.cluster.custody import put_secret
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.files import read_bounded
    from ensconce.keys.keystore import MAX_SECRET

    secret = sys.stdin.buffer.read(MAX_SECRET + 1) if source == "-" else read_bounded(Path(source), MAX_SECRET)
    put_secret(OwnerFolder.open(owner), key_id, secret)
    if json:
        print_json({"stored": key_id})
        return
    remark(f"stored {key_id}")


@app.command("list")
def list_keys(owner: Owner = _HERE, json: Json = False) -> None:
    """List every key, live and retired, once the audit log has confirmed that the keystore is not an earlier one.

    Examples:

      ensconce key list --json
    """
    from ensconce.cluster.custody import checked_keystore
    from ensconce.cluster.owner import OwnerFolder

    keystore = checked_keystore(OwnerFolder.open(owner))
    with keystore.contents() as contents:
        entries, generation = contents.entries(), contents.generation
    if json:
        print_json({"generation": generation, "keys": [_about(entry) for entry in entries]})
        return
    rows = [[entry.key_id, entry.kind, _time(entry.created), _time(entry.retired)] for entry in entries]
    print_table(["id", "kind", "created", "retired"], rows)


@app.command("show")
def show(key_id: KeyId, owner: Owner = _HERE, json: Json = False) -> None:
    """Say what may be told about a key; of a private key, the public one. Never prints a secret.

    Examples:

      ensconce key show signing/owner
    """
    import base64

    from ensconce.cluster.custody import find_key
    from ensconce.cluster.owner import OwnerFolder

    entry, public = find_key(OwnerFolder.open(owner), key_id)
    about = _about(entry) | ({} if public is None else {"public_key": base64.b64encode(public).decode()})
    if json:
        print_json(about)
        return
    for name, value in about.items():
        say(f"{name}: {'no' if value is None else value}")


@app.command("retire")
def retire(key_id: KeyId, owner: Owner = _HERE, json: Json = False) -> None:
    """Destroy the key of a model's version, or a secret, for good; its id stays taken.

    Examples:

      ensconce key retire secret/license
    """
    from ensconce.cluster.custody import retire_key
    from ensconce.cluster.owner import OwnerFolder

    retire_key(OwnerFolder.open(owner), key_id)
    if json:
        print_json({"retired": key_id})
        return
    remark(f"retired {key_id}")


@app.command("rewrap")
def rewrap(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="file|passphrase|FILE",
            help="What opens the keystore from now on: unlock.key, a passphrase, or what a YAML file describes, in the "
            "form of the keystore block of ensconce.yaml. Left out: the same as now.",
        ),
    ] = None,
    owner: Owner = _HERE,
    json: Json = False,
) -> None:
    """Seal the keystore under a new root key, and let something else open it; what opened it before no longer does.

    Examples:

      ensconce key rewrap

      ensconce key rewrap --to passphrase

      ensconce key rewrap --to vault.yaml
    """
    from ensconce.cluster.custody import rewrap
    from ensconce.cluster.keystore_entry import read_entry
    from ensconce.cluster.owner import OwnerFolder

    folder = OwnerFolder.open(owner)
    rewrap(folder, None if to is None else read_entry(to))
    entry = folder.deployment().keystore
    kind = "file" if entry is None else entry.kind
    if json:
        print_json({"opened_by": kind})
        return
    remark(f"the keystore is now opened by: {kind}")


@app.command("backup")
def backup(
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    shares: Annotated[int, typer.Option(min=2, max=16, help="How many shares to make.")],
    threshold: Annotated[int, typer.Option(min=2, max=16, help="How many of them open the backup.")],
    shares_to: Annotated[
        Path | None, typer.Option(help="A new folder for the shares, one file each; else they are shown here, in turn.")
    ] = None,
    owner: Owner = _HERE,
    json: Json = False,
) -> None:
    """Write the whole keystore, sealed under a key that exists only in shares of 33 words (SLIP-39).

    Examples:

      ensconce key backup -o keystore.backup --shares 5 --threshold 3

      ensconce key backup -o keystore.backup --shares 3 --threshold 2 --shares-to shares
    """
    from ensconce.cluster.custody import backup
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.files import write_aside

    if shares_to is None and json:
        raise InputError("usage", "--json leaves no place to show shares at", remedy="name a new folder, --shares-to")
    if shares_to is None and not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise InputError(
            "backup.terminal",
            "there is no terminal to show the shares at",
            remedy="run it at one, or name a new folder with --shares-to",
        )

    folder = OwnerFolder.open(owner)
    there = output.exists()
    if shares_to is not None:
        _make_folder(shares_to)

    def hand_out(number: int, count: int, words: str) -> None:
        if shares_to is None:
            _show_share(number, count, words)
        else:
            write_aside(shares_to / f"share-{number}-of-{count}.txt", f"{words}\n".encode(), mode=0o600)

    try:
        backup(folder, output, shares, threshold, hand_out)
    except BaseException:
        if shares_to is not None and (there or not output.exists()):
            shutil.rmtree(shares_to, ignore_errors=True)  # shares that open nothing look like some that do
        raise
    if json:
        print_json({"backup": str(output), "shares_to": str(shares_to), "shares": shares, "threshold": threshold})
        return
    remark(f"wrote {output}; any {threshold} of its {shares} shares open it")


def _show_share(number: int, count: int, words: str) -> None:
    try:
        sys.stdout.write(f"{_CLEAR}Share {number} of {count}. Write it down, for one person alone:\n\n{words}\n\n")
        input("Return shows the next one: " if number < count else "Return clears the screen: ")
    except EOFError:
        raise InputError(
            "backup.terminal",
            "the input ended before all shares were shown",
            remedy="throw away those that were written down, and run it again",
        ) from None
    finally:
        sys.stdout.write(_CLEAR)
        sys.stdout.flush()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        raise InputError(
            "backup.exists", f"{path} exists", rule="shares are never overwritten", remedy="choose a new folder"
        ) from None
    except OSError as error:
        raise InputError(
            "file.create",
            f"cannot make the folder {path}: {error.strerror}",
            remedy="check the path, and that its folder exists and can be written",
        ) from None


@app.command("recover")
def recover(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    share: Annotated[
        list[Path] | None, typer.Option(help="A file with one share; several times. Without, the words are asked for.")
    ] = None,
    owner: Owner = _HERE,
    json: Json = False,
) -> None:
    """Make the keystore anew out of a backup and enough of its shares, in an owner's folder that has none.

    What the audit log says was retired since the backup stays retired.

    Examples:

      ensconce key recover keystore.backup --share share-1-of-3.txt --share share-3-of-3.txt
    """
    from ensconce.cluster.custody import recover
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.files import read_bounded
    from ensconce.keys.backup import about_backup
    from ensconce.keys.sealed import MAX_FILE
    from ensconce.keys.shares import MAX_SHARE_TEXT

    folder = OwnerFolder.open(owner)
    if share:
        texts = [read_bounded(path, MAX_SHARE_TEXT).decode(errors="replace") for path in share]
    else:
        about = about_backup(read_bounded(source, 2 * MAX_FILE))
        remark(f"a backup of {about.deployment}, made {_time(about.created)}")
        texts = [_ask_share(folder.ask, number, about.threshold) for number in range(1, about.threshold + 1)]
    found = recover(folder, source, texts)
    if json:
        print_json({"keys": [_about(each) for each in found.entries], "retired": found.retired, "lost": found.lost})
        return
    remark(f"recovered {len(found.entries)} keys")
    for key_id in found.retired:
        remark(f"{key_id} was live in the backup; it stays retired")
    for key_id in found.lost:
        remark(f"{key_id} was added after the backup, and is lost")


def _ask_share(ask: Callable[[str], str], number: int, count: int) -> str:
    try:
        return ask(f"Share {number} of {count}: ")
    except InputError as error:  # it speaks of a passphrase, which is what is asked for otherwise
        raise InputError(
            "backup.terminal",
            f"share {number} of {count} was not typed, or there is no terminal to type it at",
            remedy="run it at one, or name a file for each share with --share",
        ) from error


def _about(entry: Any) -> dict[str, Any]:
    about = {"id": entry.key_id, "kind": entry.kind, "created": entry.created, "retired": entry.retired}
    return with_times(about, "created", "retired")


def _time(seconds: int | None) -> str:
    from ensconce.times import utc_text

    return "" if seconds is None else utc_text(seconds)
