"""A root key as shares of words, any ``threshold`` of which make it whole again: SLIP-39 by SatoshiLabs' own library.

SLIP-39 (https://github.com/satoshilabs/slips/blob/master/slip-0039.md) with one group, no passphrase, the extendable
flag and iteration exponent 0: 33 words for 32 bytes, the first two of which are the same in all shares of a key.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from shamir_mnemonic import (  # type: ignore[import-untyped]  # it has no annotations file
    EncryptedMasterSecret,
    MnemonicError,
    Share,
    decode_mnemonics,
    recover_ems,
    split_ems,
)
from shamir_mnemonic.wordlist import WORDLIST  # type: ignore[import-untyped]

from ensconce.errors import InputError
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.unlock import ROOT_KEY_SIZE

__all__ = ["MAX_SHARE_TEXT", "Shares", "combine", "split"]

MAX_SHARE_TEXT = 1024
"""Longest share as text, in characters; 33 words take about 250."""
_MAX_SHARES = 16
_WORDS = 33


@dataclass(frozen=True)
class Shares:
    """A key in pieces.

    Attributes:
        identifier: 15 random bits that all its shares begin with; tells the shares of one backup from another's.
        threshold: how many are needed.
        texts: 33 words each.
    """

    identifier: int
    threshold: int
    texts: tuple[str, ...] = field(repr=False)


def split(key: SecretBuffer, shares: int, threshold: int) -> Shares:
    """Make shares of a 32-byte key.

    Raises:
        InputError: ``backup.shares``: not 2 <= threshold <= shares <= 16.
    """
    if not 2 <= threshold <= shares <= _MAX_SHARES:
        raise InputError(
            "backup.shares",
            "a key cannot be split like this",
            found=f"{threshold} of {shares}",
            rule=f"a threshold from 2 to the number of shares, and at most {_MAX_SHARES} shares",
            remedy="such as --shares 5 --threshold 3",
        )
    identifier = secrets.randbits(15)
    whole = EncryptedMasterSecret.from_master_secret(bytes(key.view), b"", identifier, True, 0)
    (group,) = split_ems(1, [(threshold, shares)], whole)
    return Shares(identifier, threshold, tuple(share.mnemonic() for share in group))


def combine(texts: Sequence[str]) -> tuple[int, SecretBuffer]:
    """The shares' identifier, and the key.

    Args:
        texts: at least as many shares as are needed, in any order; the same one twice counts once.

    Raises:
        InputError: ``backup.share``: one is no share, or has a typing error; ``backup.mixed``: they are of different
            keys; ``backup.too_few``. No error repeats a word.
    """
    shares: dict[int, Share] = {}
    words: dict[int, str] = {}
    for number, text in enumerate(texts, 1):
        normal, share = _parse(text, number)
        other = shares.setdefault(share.index, share)
        first = next(iter(shares.values()))
        if other != share or share.group_parameters() != first.group_parameters():
            raise _mixed(number)
        words[share.index] = normal
    if not shares:
        raise InputError("backup.too_few", "there are no shares", remedy="give the shares of this backup")
    needed = next(iter(shares.values())).member_threshold
    if len(shares) < needed:
        raise InputError(
            "backup.too_few",
            "these are not enough shares",
            found=f"{len(shares)} different ones",
            rule=f"{needed}",
            remedy="ask more of the people who have one",
        )
    try:
        whole = recover_ems(decode_mnemonics(list(words.values())[:needed]))
        key = whole.decrypt(b"")
    except MnemonicError:
        key = None
    if key is None:
        raise _mixed(None)
    return whole.identifier, SecretBuffer.of(key)


def _parse(text: str, number: int) -> tuple[str, Share]:
    problem, share, normal = None, None, ""
    if len(text) > MAX_SHARE_TEXT:
        problem = "it is too long"
    else:
        words = text.lower().split()
        normal = " ".join(words)
        unknown = [str(at) for at, word in enumerate(words, 1) if word not in WORDLIST]
        if len(words) != _WORDS:
            problem = f"it has {len(words)} words, not {_WORDS}"
        elif unknown:
            problem = f"not in SLIP-39's list of words: number {', '.join(unknown[:5])}"
        else:
            try:
                share = Share.from_mnemonic(normal)
            except MnemonicError:
                problem = "its checksum is wrong: a word is not the right one, or out of its place"
    # Raised out here: the library's errors repeat words, and would travel as a cause.
    if share is None:
        raise InputError(
            "backup.share", f"share {number} is not one: {problem}", remedy="compare it with the paper, word by word"
        )
    if (share.group_count, share.group_threshold, len(share.value)) != (1, 1, ROOT_KEY_SIZE):
        raise InputError(
            "backup.share", f"share {number} is of something else than a backup", remedy="choose the right paper"
        )
    return normal, share


def _mixed(number: int | None) -> InputError:
    return InputError(
        "backup.mixed",
        "these shares do not belong together" if number is None else f"share {number} is of another key than the first",
        rule="all shares are of one backup, and begin with the same two words",
        remedy="sort them by their first two words",
    )
