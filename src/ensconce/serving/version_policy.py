"""Which versions of a model are wanted, and what to do next to have them; no folder is read and nothing loaded here.

Names of folders and choice of versions: sources/storage_path/file_system_storage_path_source.cc. The next thing to do:
core/availability_preserving_policy.cc.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

__all__ = ["Action", "Phase", "VersionView", "choose_versions", "next_action", "parse_version"]

_log = logging.getLogger(__name__)

_MAX_VERSION: Final = 2**63 - 1
_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*([+-]?)([0-9]+)[ \t\n\v\f\r]*")


class Phase(Enum):
    """What a version is in the middle of."""

    NEW = "new"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    ENDED = "ended"
    FAILED = "failed"


class Action(Enum):
    """What can be done about a version."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True)
class VersionView:
    """A version as the policy sees it: ``wanted`` says whether the model's configuration asks for it."""

    version: int
    phase: Phase
    wanted: bool


def parse_version(name: str) -> int | None:
    """The version that a folder of this name holds, or None: the rules of ``absl::SimpleAtoi`` for a 64-bit integer.

    Leading zeros, a plus sign and white space around the number are taken. Negative numbers are not: a version "must be
    non-negative" (core/servable_id.h).
    """
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    # Not made a number before it is known to be short: that takes time by the square of its length.
    digits = match[2].lstrip("0") or "0"
    if len(digits) > len(str(_MAX_VERSION)) or int(digits) > _MAX_VERSION or (match[1] == "-" and digits != "0"):
        return None
    return int(digits)


def choose_versions(model: str, policy: Any, names: Iterable[str]) -> dict[int, str]:
    """The versions to serve and the names of their folders, latest first.

    Of several folders of one number, the last by name counts; where all versions are served, the first.

    Args:
        model: its name, for the log.
        policy: ``FileSystemStoragePathSourceConfig.ServableVersionPolicy``; not set is the latest version.
        names: what is in the model's folder.
    """
    children = sorted(names, key=lambda name: name.encode(errors="surrogateescape"))
    choice = policy.WhichOneof("policy_choice")
    by_version: dict[int, str] = {}
    for name in reversed(children) if choice == "all" else children:
        version = parse_version(name)
        if version is None:
            continue
        if version in by_version:
            _log.warning(
                "version %d of model %s is served from %r, not from %r", version, model, name, by_version[version]
            )
        by_version[version] = name
    ordered = sorted(by_version, reverse=True)
    if choice == "specific":
        wanted = set(policy.specific.versions)
        for version in sorted(wanted - by_version.keys()):
            _log.warning("version %d of model %s, which its configuration asks for, is not there", version, model)
        chosen = [version for version in ordered if version in wanted]
    elif choice == "all":
        chosen = ordered
    else:
        chosen = ordered[: max(policy.latest.num_versions, 1)]
    return {version: by_version[version] for version in chosen}


def next_action(versions: Collection[VersionView]) -> tuple[Action, int] | None:
    """What to do next about one model: what serves goes only once what is wanted serves, or if nothing is wanted.

    Of several that serve unwanted, all but one go at once, lowest first; what is wanted is loaded latest first.
    """
    wanted = [each for each in versions if each.wanted]
    unwanted = sorted(each.version for each in versions if not each.wanted and each.phase is Phase.READY)
    if unwanted and (not wanted or len(unwanted) > 1 or any(each.phase is Phase.READY for each in wanted)):
        return Action.UNLOAD, unwanted[0]
    new = [each.version for each in wanted if each.phase is Phase.NEW]
    return (Action.LOAD, max(new)) if new else None
