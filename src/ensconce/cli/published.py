"""Options of the commands that judge a service: a policy, what is published, or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ensconce.errors import InputError

if TYPE_CHECKING:
    from ensconce.client.published import PublishedList

__all__ = ["Policy", "Published", "Publisher", "Root", "published_list"]

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
Root = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        help="With --published alone: intel, unless given, or simulated:SHA256.",
    ),
]


def published_list(
    policy: Path | None, published: str | None, publisher: list[str] | None, root: list[str] | None
) -> PublishedList | None:
    """What has to be published, as these options say; None where nothing has to be.

    Raises:
        InputError: ``usage``; as :class:`~ensconce.client.published.PublishedList`.
    """
    from ensconce.client.published import PublishedList

    if published is None and (publisher or root):
        raise _usage("--publisher and --root are about what is published", "give --published, or leave them out")
    if policy is not None and root:
        raise _usage("the policy says which roots there are", "leave out --root")
    if published is None:
        return None
    return PublishedList(published, publisher or (), roots=tuple(root or ("intel",)))


def _usage(problem: str, remedy: str) -> InputError:
    return InputError("usage", problem, remedy=remedy)
