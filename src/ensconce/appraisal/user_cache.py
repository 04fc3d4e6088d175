"""Collateral as a command line or a client names it, kept where this user's caches are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.origin import BundleOrigin, Origin, ServerOrigin
from ensconce.appraisal.policy import Policy
from ensconce.folders import cache_folder, make_below
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store
from ensconce.times import unix_now

__all__ = ["INTEL", "collateral_cache"]

INTEL: Final = "https://api.trustedservices.intel.com"
"""Intel's own service."""


def collateral_cache(
    policy: Policy,
    source: str,
    *,
    ca_file: Path | None = None,
    store: Store | None = None,
    now: Callable[[], int] = unix_now,
) -> CollateralCache:
    """Collateral under the roots of a policy.

    Args:
        policy: names the roots.
        source: URL of a PCCS or of Intel's service; or, without ``://``, the path of a bundle file.
        ca_file: PEM file of the authorities to expect the server's TLS certificate from, instead of the system's.
        store: what remembers collateral, how new it was, and revocations; servers of one deployment share theirs. When
            absent, a folder of this user, one for each set of roots, because two simulated machines may have served
            the same address one after the other, and nothing of the first verifies under the root of the second.
        now: the clock, seconds since 1970.

    Raises:
        InputError: the user's folder cannot be made.
    """
    origin: Origin = ServerOrigin(source, policy.roots, ca_file) if "://" in source else BundleOrigin(Path(source))
    if store is None:
        name = "+".join(root.replace(":", "-")[:30] for root in policy.roots)
        store = FolderStore(make_below(cache_folder() / "collateral" / name, "cache"))
    return CollateralCache(store, origin, now, roots=policy.roots)
