"""``ensconce quote``: look at quotes, and verify them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensconce.cli.output import print_json, say
from ensconce.errors import EvidenceError
from ensconce.files import read_bounded
from ensconce.times import utc_text

if TYPE_CHECKING:
    from ensconce.appraisal.root import TrustRoot
    from ensconce.evidence.quote import Quote

__all__ = ["app", "show", "verify"]

app = typer.Typer(no_args_is_help=True, help="Look at quotes, and verify them.")

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The quote, in binary, or an RA-TLS certificate.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]


@app.command(
    epilog="Example: ensconce quote show replica.quote --json | jq .mr_enclave",
)
def show(file: _File, json: _Json = False) -> None:
    """Print what a quote says, without verifying any of it.

    Exit status: 0, or 2 when the file cannot be read, or 3 when it is no quote.
    """
    from ensconce.evidence.quote import parse_quote
    from ensconce.ratls.quote_file import read_quote

    shown = _describe(parse_quote(read_quote(file)))
    if json:
        print_json(shown)
    else:
        _print("Not verified.", shown)


@app.command(
    epilog="Example: ensconce quote verify replica.quote --collateral collateral.json --at $(date +%s) --root root.pem",
)
def verify(
    file: _File,
    collateral: Annotated[
        Path, typer.Option(metavar="FILE", help="The collateral: a bundle, or nine members as dcap-qvl writes them.")
    ],
    at: Annotated[int, typer.Option(metavar="UNIX_TIME", help="Verify as of this time, in seconds since 1970.")],
    root: Annotated[
        str, typer.Option(metavar="intel|FILE", help="Whom to trust: Intel, or a root certificate in a file.")
    ] = "intel",
    json: _Json = False,
) -> None:
    """Verify a quote: is it genuine, and how up to date is its platform?

    The TCB status is a result, not a failure: whether it is good enough is for a policy to say.

    Exit status: 0 when the quote is genuine, 3 when it is not, 2 when an argument or a file is wrong.
    """
    from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
    from ensconce.appraisal.dcap import verify_quote
    from ensconce.appraisal.root import IntelRoot, parse_root_certificate
    from ensconce.ratls.quote_file import read_quote

    trusted: TrustRoot = IntelRoot() if root == "intel" else parse_root_certificate(read_bounded(Path(root), 64 * 1024))
    bundle = CollateralBundle.from_json(read_bounded(collateral, MAX_BUNDLE_SIZE))
    data = read_quote(file)
    verdict = verify_quote(data, bundle.get_for(data), at=at, root=trusted)
    if json:
        print_json(verdict.to_json_object())
    else:
        _print(
            "Genuine."
            if isinstance(trusted, IntelRoot)
            else "Genuine for a simulated platform, which protects nothing.",
            verdict.to_json_object(),
        )


def _describe(quote: Quote) -> dict[str, Any]:
    from ensconce.appraisal.pck import chain_in, read_pck
    from ensconce.appraisal.root import claimed_root

    header = quote.header
    value: dict[str, Any] = {
        "verified": False,
        "version": header.version,
        "tee": quote.tee,
        "attestation_key_type": header.attestation_key_type,
        "qe_svn": header.qe_svn,
        "pce_svn": header.pce_svn,
        "qe_vendor_id": header.qe_vendor_id.hex(),
        "user_data": header.user_data.hex(),
        **quote.body.to_json_object(),
        "signature": quote.signature.hex(),
        "attestation_key": quote.attestation_key.hex(),
        "qe_report": quote.qe_report.to_json_object(),
        "qe_report_signature": quote.qe_report_signature.hex(),
        "qe_auth_data": quote.qe_auth_data.hex(),
        "certification_type": quote.certification_type,
        "certificates": None,
        "fmspc": None,
        "pce_id": None,
        "ca": None,
        "root": None,
    }
    # A quote is worth looking at even when its certificates are not: they are what is often wrong with it.
    try:
        value["certificates"] = [
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "serial_number": f"{certificate.serial_number:x}",
                "not_before": utc_text(certificate.not_valid_before_utc.timestamp()),
                "not_after": utc_text(certificate.not_valid_after_utc.timestamp()),
            }
            for certificate in chain_in(quote)
        ]
        value["root"] = claimed_root(quote)
        pck = read_pck(quote)
        value |= {"fmspc": pck.fmspc, "pce_id": pck.pce_id, "ca": pck.ca}
    except EvidenceError as error:
        value["certificates_error"] = error.fields()
    return value


def _print(title: str, value: Mapping[str, Any]) -> None:
    # Plain lines: a table would fold or cut what people copy most, the measurements.
    rows = _rows(value)
    width = max(len(name) for name, _ in rows)
    say(title)
    for name, text in rows:
        say(f"{name:<{width}}  {text}")


def _rows(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """What ``--json`` prints, flat."""
    rows: list[tuple[str, str]] = []
    for name, member in value.items():
        if isinstance(member, Mapping):
            rows += _rows(member, f"{prefix}{name}.")
        elif isinstance(member, list) and any(isinstance(item, Mapping) for item in member):
            for index, item in enumerate(member):
                rows += _rows(item, f"{prefix}{name}[{index}].")
        elif member is not None:
            rows.append((prefix + name, _text(member)))
    return rows


def _text(member: object) -> str:
    if isinstance(member, bool):
        return "yes" if member else "no"
    if isinstance(member, list):
        return ", ".join(map(str, member)) or "none"
    # Names in certificates are a stranger's: no escape sequence of theirs may reach the terminal.
    text = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(member))
    if len(text) >= 32 and not text.strip("0"):
        return f"zero ({len(text) // 2} bytes)"
    return text
