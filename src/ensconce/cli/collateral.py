"""``ensconce collateral``: what the vendor says of platforms, to be carried to where there is no network."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ensconce.cli.output import print_json, say, with_times

if TYPE_CHECKING:
    from ensconce.appraisal.bundle import CollateralBundle
    from ensconce.appraisal.collateral import Collateral, PlatformKind

__all__ = ["app", "bundle", "fetch", "show"]

app = typer.Typer(no_args_is_help=True, help="Fetch what the vendor says of platforms, and carry it along.")

_MAX_ROOT_FILE = 64 * 1024

_Url = Annotated[
    str,
    typer.Option("--url", envvar="ENSCONCE_PCCS", metavar="URL", help="Where to ask: a PCCS, or Intel's own service."),
]
_CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="FILE", help="Expect the server's TLS certificate from the authority in FILE."),
]
_Root = Annotated[
    str, typer.Option(metavar="intel|FILE", help="Whom to trust: Intel, or a root certificate in a file.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")]
_Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write.")]
_INTEL = "https://api.trustedservices.intel.com"


@app.command(
    epilog="Example: ensconce collateral fetch my.quote --url https://localhost:8081 --ca-file pccs.pem -o bundle.json"
)
def fetch(
    output: _Output,
    quote: Annotated[
        Path | None, typer.Argument(metavar="[QUOTE]", help="For the platform of this quote, or RA-TLS certificate.")
    ] = None,
    fmspc: Annotated[str | None, typer.Option(metavar="HEX", help="For this kind of machine: 12 digits.")] = None,
    ca: Annotated[
        Literal["processor", "platform"], typer.Option(help="With --fmspc: who issued its PCK certificates.")
    ] = "platform",
    tee: Annotated[Literal["sgx", "tdx"], typer.Option(help="With --fmspc: what the quotes are of.")] = "sgx",
    url: _Url = _INTEL,
    ca_file: _CaFile = None,
    root: _Root = "intel",
    json: _Json = False,
) -> None:
    """Fetch the collateral for one kind of platform into a bundle.

    What is written was signed under the root, for this kind of platform, and has not expired.

    Exit status: 0, 2 when an argument or a file is wrong, 3 when what was fetched is not genuine, 5 when nothing was.
    """
    from ensconce.appraisal.collateral import PlatformKind
    from ensconce.errors import InputError

    if (quote is None) == (fmspc is None):
        raise InputError("collateral.platform", "name one quote, or an FMSPC", rule="QUOTE, or --fmspc, and not both")
    kind = _kind_of(quote) if quote is not None else PlatformKind(tee, fmspc or "", ca)
    _write([kind], output, url, ca_file, root, json)


@app.command(epilog="Example: ensconce collateral bundle replica.quote guest.quote -o bundle.json")
def bundle(
    quotes: Annotated[
        list[Path],
        typer.Argument(metavar="QUOTE...", help="For the platforms of these quotes, or RA-TLS certificates."),
    ],
    output: _Output,
    url: _Url = _INTEL,
    ca_file: _CaFile = None,
    root: _Root = "intel",
    json: _Json = False,
) -> None:
    """Fetch the collateral for the platforms of several quotes into one bundle.

    Exit status: as `ensconce collateral fetch`; the bundle is written whole or not at all.
    """
    _write(dict.fromkeys(map(_kind_of, quotes)), output, url, ca_file, root, json)


@app.command(epilog="Example: ensconce collateral show bundle.json --json | jq '.[].valid_until'")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A bundle, or the collateral for one platform.")],
    json: _Json = False,
) -> None:
    """Print what a bundle has, and until when it is good. Signatures are checked up to whatever root it names itself.

    Exit status: 0, 2 when the file cannot be read, 3 when something in it is not what its signer signed.
    """
    from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
    from ensconce.files import read_bounded

    shown = [_describe(each) for each in CollateralBundle.from_json(read_bounded(file, MAX_BUNDLE_SIZE)).entries]
    if json:
        print_json(shown)
        return
    for each in shown:
        say(f"{each['tee']} {each['fmspc']} {each['ca']}")
        for name, value in each.items():
            if name not in ("tee", "fmspc", "ca"):
                say(f"  {name:<36} {value}")


def _kind_of(path: Path) -> PlatformKind:
    from ensconce.appraisal.collateral import PlatformKind
    from ensconce.evidence.quote import parse_quote
    from ensconce.ratls.quote_file import read_quote

    return PlatformKind.of(parse_quote(read_quote(path)))


def _write(kinds: Iterable[PlatformKind], output: Path, url: str, ca_file: Path | None, root: str, json: bool) -> None:
    from ensconce.appraisal.bundle import CollateralBundle
    from ensconce.files import write_aside
    from ensconce.times import utc_text

    fetched = [_fetch(kind, url, ca_file, root) for kind in kinds]
    made: CollateralBundle = CollateralBundle.of(collateral for collateral, _ in fetched)
    write_aside(output, made.to_json().encode())
    if json:
        print_json([_describe(each) for each in made.entries])
        return
    for kind, (_, end) in zip(kinds, fetched, strict=True):
        say(f"{kind} is good until {utc_text(end)}")


def _fetch(kind: PlatformKind, url: str, ca_file: Path | None, root: str) -> tuple[Collateral, int]:
    """Collateral, and when it expires."""
    from ensconce.appraisal.pccs import fetch_collateral
    from ensconce.appraisal.root import parse_root_certificate
    from ensconce.appraisal.vetting import vet
    from ensconce.errors import UnreachableError
    from ensconce.files import read_bounded
    from ensconce.times import unix_now

    roots = ("intel" if root == "intel" else parse_root_certificate(read_bounded(Path(root), _MAX_ROOT_FILE)).name,)
    vetted = vet(fetch_collateral(url, kind, roots=roots, ca_file=ca_file), roots, kind)
    if vetted.end <= unix_now():
        raise UnreachableError(
            "collateral.expired",
            f"{url} gave collateral for {kind} that has expired",
            found=f"expired at {vetted.end}",
            rule=f"now {unix_now()}",
            remedy="let the PCCS refresh what it has, and check this machine's clock",
        )
    return vetted.collateral, vetted.end


def _describe(collateral: Collateral) -> dict[str, Any]:
    from ensconce.appraisal.root import name_of_root
    from ensconce.appraisal.vetting import root_of, vet

    vetted = vet(collateral, (name_of_root(root_of(collateral)),))
    value: dict[str, Any] = {
        "tee": vetted.platform.tee,
        "fmspc": vetted.platform.fmspc,
        "ca": vetted.platform.ca,
        "root": vetted.root,
        "tcb_evaluation_data_number": vetted.papers.tcb_info.evaluation_number,
        "qe_evaluation_data_number": vetted.papers.qe_identity.evaluation_number,
        "root_ca_crl_revoked": len(vetted.lists[0].serials),
        "pck_crl_revoked": len(vetted.lists[1].serials),
    }
    times = {
        "tcb_info_issued": vetted.papers.tcb_info.issued,
        "tcb_info_next_update": vetted.papers.tcb_info.next_update,
        "qe_identity_issued": vetted.papers.qe_identity.issued,
        "qe_identity_next_update": vetted.papers.qe_identity.next_update,
        "root_ca_crl_next_update": vetted.lists[0].next_update,
        "pck_crl_next_update": vetted.lists[1].next_update,
        "valid_from": vetted.begin,
        "valid_until": vetted.end,
    }
    return with_times(value | times, *times)
