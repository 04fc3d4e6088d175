"""Where collateral is fetched from: a server that speaks Intel's API, or a bundle file where there is no network."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
from ensconce.appraisal.collateral import Collateral, PlatformKind
from ensconce.appraisal.http import Pace
from ensconce.appraisal.pccs import fetch_collateral
from ensconce.files import read_bounded

__all__ = ["BundleOrigin", "Origin", "ServerOrigin"]


class Origin(Protocol):
    """Somewhere to fetch from; what it gives is judged by whoever asked."""

    @property
    def name(self) -> str:
        """For errors: a URL or a path."""

    @property
    def refresh_s(self) -> int:
        """How often it is worth asking again, in seconds."""

    def fetch(self, platform: PlatformKind) -> Collateral:
        """Collateral for one kind of platform. Blocks.

        Raises:
            UnreachableError: there is none to be had now.
            InputError: the origin is not what it was named as.
        """


@dataclass(frozen=True, slots=True)
class ServerOrigin:
    """A PCCS, or Intel's service.

    Attributes:
        url: see :func:`ensconce.appraisal.pccs.fetch_collateral`.
        roots: likewise.
        ca_file: likewise.
        pace: likewise.
    """

    url: str
    roots: Collection[str]
    ca_file: Path | None = None
    pace: Pace | None = None

    @property
    def name(self) -> str:
        """The URL."""
        return self.url

    @property
    def refresh_s(self) -> int:
        """A day."""
        return 24 * 3600

    def fetch(self, platform: PlatformKind) -> Collateral:
        """Ask the server."""
        return fetch_collateral(self.url, platform, roots=self.roots, ca_file=self.ca_file, pace=self.pace)


@dataclass(frozen=True, slots=True)
class BundleOrigin:
    """A bundle file, which somebody replaces now and then.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def refresh_s(self) -> int:
        """A minute: looking is cheap, and whoever put a new file there means it to be used."""
        return 60

    def fetch(self, platform: PlatformKind) -> Collateral:
        """Read the file again, and pick."""
        return CollateralBundle.from_json(read_bounded(self.path, MAX_BUNDLE_SIZE)).get(platform)
