"""Options of the commands that judge a service: a policy, what is published, or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensconce.cli.output import remark
from ensconce.errors import InputError

if TYPE_CHECKING:
    from ensconce.client.published import PublishedList

__all__ = [
    "Policy",
    "Published",
    "Publisher",
    "PublisherIdentity",
    "PublisherIssuer",
    "Root",
    "TrustRoot",
    "published_list",
]

Policy = Annotated[
    Path | None,
    typer.Option("--policy", help="The measurements that this client accepts; or --published, or both."),
]
Published = Annotated[
    str | None,
    typer.Option(
        "--published",
        metavar="URL|FILE",
        help="What its publisher has published: accepts this and nothing else. With --policy, both have to accept.",
    ),
]
Publisher = Annotated[
    list[str] | None,
    typer.Option(
        "--publisher",
        metavar="KEY",
        help="Whose list to believe: owner.pub, or ed25519:HEX; several.",
    ),
]
PublisherIdentity = Annotated[
    str | None,
    typer.Option(
        "--publisher-identity",
        metavar="ID",
        help="Whose list to believe by Sigstore: an email address, or a workflow's URI. This or a key is enough.",
    ),
]
PublisherIssuer = Annotated[
    str | None,
    typer.Option("--publisher-issuer", metavar="URL", help="Who vouches for that identity: its OpenID Connect issuer."),
]
TrustRoot = Annotated[
    Path | None,
    typer.Option(
        "--sigstore-trust-root",
        metavar="FILE",
        help="The trusted root of a Sigstore instance of one's own; the public instance's when not given.",
    ),
]
Root = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        help="With --published alone: intel, unless given, or simulated:SHA256.",
    ),
]


def published_list(
    policy: Path | None,
    published: str | None,
    publisher: list[str] | None,
    identity: str | None,
    issuer: str | None,
    trust_root: Path | None,
    root: list[str] | None,
) -> PublishedList | None:
    """What has to be published, as these options say; None where nothing has to be.

    Raises:
        InputError: ``usage``; as :class:`~ensconce.client.published.PublishedList`.
    """
    from ensconce.client.published import PublishedList
    from ensconce.publication.sigstore import SigstoreIdentity

    if published is None and (publisher or identity or issuer or trust_root or root):
        raise _usage("publishers and roots are about what is published", "give --published, or leave them out")
    if policy is not None and root:
        raise _usage("the policy says which roots there are", "leave out --root")
    if published is None:
        return None
    if (identity is None) != (issuer is None) or (trust_root is not None and identity is None):
        raise _usage(
            "--publisher-identity and --publisher-issuer belong together, and --sigstore-trust-root to them",
            "give both: an identity is one of its issuer's only",
        )
    if trust_root is not None:
        remark(f"identities are judged under {trust_root}, which is not Sigstore's public root")
    return PublishedList(
        published,
        publisher or (),
        identities=() if identity is None or issuer is None else (SigstoreIdentity(identity, issuer),),
        trust_root=trust_root,
        roots=tuple(root or ("intel",)),
    )


def _usage(problem: str, remedy: str) -> InputError:
    return InputError("usage", problem, remedy=remedy)
