"""``ensconce audit``: read the log, check it, prove things about it, and hand out what others need to check it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensconce.cli.output import print_json, remark, say
from ensconce.cli.owner import Owner

if TYPE_CHECKING:
    from ensconce.audit.head import Head

__all__ = ["app"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PublicKey = Annotated[Path | None, typer.Option(help="The owner's public key, owner.pub; for those who are not her.")]
Out = Annotated[Path | None, typer.Option(help="Where to write it; standard output when not given.")]

app = typer.Typer(help="The log of every release and every refusal.", no_args_is_help=True)


@app.command("show")
def show(owner: Owner = Path(), json: Json = False) -> None:
    """Verify the whole log, then print its entries.

    Examples:

      ensconce audit show

      ensconce audit show --json
    """
    from ensconce.cluster.owner import OwnerFolder

    head, entries = OwnerFolder.open(owner).verified_log()
    if json:
        print_json({"head": head.to_json_object(), "entries": [entry.to_json_object() for entry in entries]})
        return
    for entry in entries:
        fields = " ".join(f"{name}={_text(value)}" for name, value in entry.fields.items())
        say(f"{entry.seq}  {entry.time}  {entry.event}  {fields}")
    say(f"{_entries(head)}, each chained to the one before; signed root {head.root.hex()}")


@app.command("verify")
def verify(
    owner: Owner = Path(),
    log: Annotated[Path | None, typer.Option(help="An exported log: a file of hashes, or a folder of entries.")] = None,
    proof: Annotated[Path | None, typer.Option(help="A proof, as `audit prove` writes it.")] = None,
    public_key: PublicKey = None,
    since: Annotated[Path | None, typer.Option(help="A head kept from earlier; the log must continue it.")] = None,
    json: Json = False,
) -> None:
    """Check the whole log, an exported log, or a proof; exit with 6 when it was changed.

    Examples:

      ensconce audit verify --since head-of-last-month.json

      ensconce audit verify --log public-log.txt --public-key owner.pub --since kept.json

      ensconce audit verify --proof entry-17.json --public-key owner.pub
    """
    from ensconce.audit.check import check_log, check_proof, check_public_log
    from ensconce.audit.proofs import InclusionProof
    from ensconce.audit.public import load_public_key, read_head
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.state import open_state
    from ensconce.errors import InputError

    if log is not None and proof is not None:
        raise InputError("usage", "--log and --proof are two questions", remedy="ask one at a time")
    key = load_public_key(public_key or owner / "owner.pub")
    earlier = None if since is None else read_head(since, key)
    entry = None
    if proof is not None:
        checked = check_proof(proof, key, earlier)
        head, entry = checked.head, checked.entry if isinstance(checked, InclusionProof) else None
    elif log is not None and not log.is_dir():
        head = check_public_log(log, key, earlier)
    else:
        head = check_log(open_state(OwnerFolder.open(owner)).log if log is None else log, key, earlier)
    if json:
        answer: dict[str, object] = {"head": head.to_json_object()}
        if earlier is not None:
            answer["since"] = earlier.to_json_object()
        if entry is not None:
            answer["entry"] = entry.to_json_object()
        print_json(answer)
        return
    if entry is not None:
        fields = " ".join(f"{name}={_text(value)}" for name, value in entry.fields.items())
        say(f"entry {entry.seq} is in the log: {entry.time}  {entry.event}  {fields}")
    if earlier is not None:
        say(f"the first {earlier.size} entries are those of the earlier head")
    say(f"{_entries(head)} under the root {head.root.hex()}, signed {head.time}")


@app.command("prove")
def prove(
    entry: Annotated[int | None, typer.Argument(min=0, help="Number of an entry.")] = None,
    first: Annotated[int | None, typer.Option("--from", min=1, help="Size of an earlier log.")] = None,
    owner: Owner = Path(),
    out: Out = None,
) -> None:
    """Prove that an entry is in the log, or that the log continues what it was when it had so many entries.

    The proof of an entry shows that entry and nothing else. `audit verify --proof` checks both kinds.

    Examples:

      ensconce audit prove 17 --out entry-17.json

      ensconce audit prove --from 1000 --out since-1000.json
    """
    from ensconce.audit.check import prove_continuation, prove_entry
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.state import open_state
    from ensconce.errors import InputError

    if (entry is None) == (first is None):
        raise InputError("usage", "what is to be proved?", remedy="name an entry, or an earlier size with --from")
    folder = OwnerFolder.open(owner)
    storage, key = open_state(folder).log, folder.public_key()
    if entry is not None:
        _write(prove_entry(storage, key, entry).to_bytes(), out)
    elif first is not None:
        _write(prove_continuation(storage, key, first).to_bytes(), out)


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(help="The file, replaced if it is there; with --full a new folder.")],
    owner: Owner = Path(),
    full: Annotated[
        bool, typer.Option("--full", help="Every entry, not for the public: JSON lines and the head.")
    ] = False,
    json: Json = False,
) -> None:
    """Write what others need to check the log: its signed head and the hash of every entry, nothing secret.

    With --full, a folder with all entries (log.jsonl, one JSON object a line) and the head.

    Examples:

      ensconce audit export public-log.txt

      ensconce audit export --full log-of-2026
    """
    from ensconce.audit.check import export_full, export_public
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.state import open_state

    folder = OwnerFolder.open(owner)
    storage, key = open_state(folder).log, folder.public_key()
    head = export_full(storage, key, out) if full else export_public(storage, key, out)
    if json:
        print_json({"wrote": str(out), "head": head.to_json_object()})
        return
    remark(f"wrote {out}: {_entries(head)}")


@app.command("witness")
def witness(
    source: Annotated[str, typer.Argument(help="The server's status address as a URL, or an exported file of hashes.")],
    public_key: Annotated[Path, typer.Option(help="The owner's public key, owner.pub.")],
    keep: Annotated[Path, typer.Option(help="The head that was good last time; replaced when the new one follows.")],
    ca: Annotated[Path | None, typer.Option(help="The authority of an https address, PEM.")] = None,
    json: Json = False,
) -> None:
    """Check that the log still continues the head kept last time, and keep its head now; exit with 6 when it does not.

    Shows nothing of what the log holds. When the log was bent, both heads are kept as evidence.

    Examples:

      ensconce audit witness http://provisioning.example:9090 --public-key owner.pub --keep head.json
    """
    from ensconce.audit.public import load_public_key, read_public_log
    from ensconce.audit.remote import RemoteLog
    from ensconce.audit.witness import Exported, LogSource, watch

    key = load_public_key(public_key)
    remote = source.startswith(("http://", "https://"))
    log: LogSource = RemoteLog(source, ca) if remote else Exported(read_public_log(Path(source), key))
    sighting = watch(log, keep, key)
    earlier = sighting.earlier
    if json:
        before = None if earlier is None else earlier.to_json_object()
        print_json({"head": sighting.head.to_json_object(), "earlier": before})
    elif earlier is None:
        say(f"kept the head of {_entries(sighting.head)}; from now on the log must continue it")
    else:
        say(f"good: {_entries(earlier)} then, {sighting.head.size} now, and the first {earlier.size} are the same")


def _write(data: bytes, out: Path | None) -> None:
    from ensconce.files import write_aside

    if out is None:
        typer.echo(data.decode(), nl=False)
    else:
        write_aside(out, data)


def _entries(head: Head) -> str:
    return f"{head.size} {'entry' if head.size == 1 else 'entries'}"


def _text(value: object) -> str:
    """A field for a terminal: what strangers sent may steer none, and may not look like an entry of its own."""
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
