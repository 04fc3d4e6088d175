"""``ensconce publish``: what the owner stands by, signed for everybody who asks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.output import print_json, remark
from ensconce.cli.owner import Owner, protect
from ensconce.errors import InputError

__all__ = ["publish"]


def publish(
    out: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Also write it there; it is OWNER/published.json.")
    ] = None,
    owner: Owner = Path(),
    name: Annotated[str | None, typer.Option(help="The enclave's name in the list.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="NAME@sha256:HEX", help="A container image that brings the enclave.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="[URI@]COMMIT", help="The Git commit that it was built from.")
    ] = None,
    withdraw: Annotated[
        str | None, typer.Option(metavar="MR_ENCLAVE", help="Take this enclave out of the list instead.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is withdrawn; clients are told.")] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Change nothing but the list's end.")] = False,
    days: Annotated[int, typer.Option(min=1, max=400, help="For how long the new list is accepted.")] = 30,
    sigstore: Annotated[
        bool | None,
        typer.Option(
            "--sigstore/--no-sigstore",
            help="Also have Sigstore sign it with your identity: a workflow's in CI, else of a login in the browser.",
        ),
    ] = None,
    sigstore_instance: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --sigstore: the client trust configuration of a Sigstore instance of your own."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, errors included.")] = False,
) -> None:
    """Publish the enclave in the bundle: sign the list of everything that is published, with it.

    Each list takes the place of the one before, is recorded in the log, and comes with the proof of that. Clients
    accept what is in the newest list, until its end: `ensconce verify --published`.

    Examples:

      ensconce publish --source "$(git rev-parse HEAD)"

      ensconce publish --withdraw 5f1c... --reason "reads beyond a buffer, see advisory 7"

      ensconce publish --renew /srv/www/published.json

      ensconce publish --renew --sigstore
    """
    protect()
    from ensconce.cluster import publish as publishing
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.files import write_aside
    from ensconce.publication.signing import SigstoreSigner

    if withdraw is not None and (renew or name or image or source):
        raise InputError("usage", "--withdraw is a publication of its own", remedy="do one after the other")
    if renew and (name or image or source):
        raise InputError("usage", "--renew changes nothing else", remedy="leave it out to publish the enclave")
    if (withdraw is None) != (reason is None):
        raise InputError("usage", "--withdraw and --reason go together", remedy="say which enclave, and why")
    if sigstore_instance is not None and not sigstore:
        raise InputError("usage", "--sigstore-instance is about --sigstore", remedy="give both, or leave it out")
    folder = OwnerFolder.open(owner)
    change = None
    if withdraw is not None and reason is not None:
        change = publishing.withdraw(withdraw, reason)
    elif not renew:
        images = [publishing.parse_image(each) for each in image or ()]
        change = publishing.add_enclave(folder, name, images, publishing.parse_source(source) if source else None)
    signer = SigstoreSigner(sigstore_instance, remark) if sigstore else None
    sign = None if signer is None else signer.sign
    file = publishing.publish(folder, change, days, sign=sign, by_key_alone=sigstore is False)
    if out is not None:
        write_aside(out, file.to_bytes())
    measurements = file.measurements
    if json:
        print_json({"sha256": file.sha256, "entry": file.proof.entry.seq, **measurements.model_dump(mode="json")})
        return
    for each in measurements.enclaves:
        remark(f"{each.mr_enclave}  {each.name}")
    remark(f"serial {measurements.serial}, until {measurements.expires}; entry {file.proof.entry.seq} of the log")
    if signer is not None:
        remark(f"signed by {signer.identity.identity}; clients: --publisher-identity, and")
        remark(f"  --publisher-issuer {signer.identity.issuer}")
    if withdraw is not None and len(measurements.withdrawn) == publishing.MAX_WITHDRAWN:
        remark(f"the list gives reasons for the last {publishing.MAX_WITHDRAWN} withdrawals; earlier ones hold without")
    remark(f"wrote {out or folder.path / publishing.PUBLISHED}")
