"""Backups and shares."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic import generate_mnemonics

from ensconce.errors import EnsconceError, InputError, IntegrityError
from ensconce.keys import FolderPlace, SealedKeystore, SecretBuffer, new_key_file
from ensconce.keys.backup import Backup, about_backup, make_backup, open_backup
from ensconce.keys.keystore import KeyEntry
from ensconce.keys.sealed import Contents, Record
from ensconce.keys.shares import combine, split

KEY = bytes(range(32))
CONTENTS = Contents(
    "ab" * 32,
    7,
    {
        "model/m/1": Record(KeyEntry("model/m/1", "wrap", 1, None), bytes(range(16))),
        "secret/a": Record(KeyEntry("secret/a", "secret", 2, 3), None),
    },
)


def make(shares: int = 5, threshold: int = 3) -> Backup:
    return make_backup(CONTENTS, deployment="d.test", shares=shares, threshold=threshold, now=99)


BACKUP, OTHER = make(), make()


def refused(act: Callable[[], object], check: str, kind: type[EnsconceError] = InputError) -> EnsconceError:
    with pytest.raises(kind) as caught:
        act()
    assert caught.value.check == check, caught.value
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


# --- shares


@settings(max_examples=30)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 16), st.data())
def test_any_threshold_of_the_shares_is_enough(key: bytes, count: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(2, count))
    made = split(SecretBuffer.of(key), count, threshold)
    assert (len(made.texts), len(set(made.texts)), made.threshold) == (count, count, threshold)
    chosen = data.draw(st.permutations(made.texts))[: data.draw(st.integers(threshold, count))]
    identifier, again = combine(chosen)
    assert identifier == made.identifier
    with again:
        assert bytes(again.view) == key


def test_every_three_of_five() -> None:
    made = split(SecretBuffer.of(KEY), 5, 3)
    for chosen in itertools.combinations(made.texts, 3):
        assert bytes(combine(chosen)[1].view) == KEY
    for chosen in itertools.combinations(made.texts, 2):
        error = refused(lambda chosen=chosen: combine(chosen), "backup.too_few")  # type: ignore[misc]
        assert (error.found, error.rule) == ("2 different ones", "3")


def test_shares_are_words_as_slip_39_has_them() -> None:
    made = split(SecretBuffer.of(KEY), 3, 2)
    words = [text.split() for text in made.texts]
    assert {len(each) for each in words} == {33}
    assert len({tuple(each[:2]) for each in words}) == 1
    assert " ".join(words[0][4:7]) not in repr(made)


def test_what_the_library_itself_makes_is_taken() -> None:
    ((*texts,),) = generate_mnemonics(1, [(2, 3)], KEY, iteration_exponent=0)
    assert bytes(combine(texts[1:])[1].view) == KEY


def test_typing_is_forgiven_where_it_can_be() -> None:
    made = split(SecretBuffer.of(KEY), 3, 2)
    texts = [made.texts[0].upper(), "\n  " + made.texts[2].replace(" ", "\n\t ") + "\n"]
    assert bytes(combine([*texts, made.texts[0]])[1].view) == KEY


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (3, 1), (2, 3), (17, 3), (0, 0), (16, 17)])
def test_splits_that_there_are_not(shares: int, threshold: int) -> None:
    refused(lambda: split(SecretBuffer.of(KEY), shares, threshold), "backup.shares")


def _swap(words: list[str]) -> list[str]:
    return [*words[:10], words[11], words[10], *words[12:]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda words: words[:-1], "32 words"),
        (lambda words: [*words, "academic"], "34 words"),
        (lambda words: [], "0 words"),
        (lambda words: [*words[:6], "sekret", *words[7:]], "number 7"),
        (lambda words: [*words[:6], "academic" if words[6] != "academic" else "acid", *words[7:]], "checksum"),
        (_swap, "checksum"),
        (lambda words: ["x" * 2000], "too long"),
    ],
)
def test_a_share_with_a_mistake_is_named_and_its_words_are_not(
    change: Callable[[list[str]], list[str]], says: str
) -> None:
    random.seed(7)
    made = split(SecretBuffer.of(KEY), 3, 2)
    words = made.texts[1].split()
    if words[10] == words[11]:
        words[11] = words[12]
    changed = " ".join(change(words))
    error = refused(lambda: combine([made.texts[0], changed]), "backup.share")
    assert says in error.problem
    assert "share 2" in error.problem
    assert "sekret" not in str(error)


def test_shares_of_different_keys() -> None:
    one, other = split(SecretBuffer.of(KEY), 3, 2), split(SecretBuffer.of(KEY), 3, 2)
    if one.identifier != other.identifier:
        error = refused(lambda: combine([one.texts[0], other.texts[1]]), "backup.mixed")
        assert "share 2" in error.problem


def test_shares_of_different_keys_that_claim_to_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensconce.keys.shares.secrets.randbits", lambda _: 5)
    one, other = split(SecretBuffer.of(KEY), 3, 2), split(SecretBuffer.of(bytes(32)), 3, 2)
    refused(lambda: combine([one.texts[0], other.texts[1]]), "backup.mixed")
    refused(lambda: combine([one.texts[0], other.texts[0]]), "backup.mixed")


def test_shares_of_something_else() -> None:
    ((*short,),) = generate_mnemonics(1, [(2, 3)], bytes(16))
    refused(lambda: combine(short), "backup.share")
    groups = generate_mnemonics(2, [(2, 2), (2, 2)], KEY)
    error = refused(lambda: combine(groups[0]), "backup.share")
    assert "something else" in error.problem
    refused(lambda: combine([]), "backup.too_few")


@given(st.lists(st.text(max_size=300), max_size=4))
def test_arbitrary_texts_are_no_shares(texts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        combine(texts)
    assert caught.value.check in ("backup.share", "backup.too_few")


# --- backups


def test_a_backup_opens_with_its_shares() -> None:
    about = about_backup(BACKUP.data)
    assert (about.deployment, about.created, about.shares, about.threshold) == ("d.test", 99, 5, 3)
    with open_backup(BACKUP.data, BACKUP.shares.texts[1:4]) as contents:
        assert (contents.identity, contents.generation) == (CONTENTS.identity, 7)
        assert contents.entries() == CONTENTS.entries()
        assert bytes(contents.records["model/m/1"].secret or b"") == bytes(range(16))


def test_nothing_of_what_it_holds_is_in_it_and_no_two_are_alike() -> None:
    assert bytes(range(16)) not in BACKUP.data
    assert b"model/m/1" not in BACKUP.data
    assert BACKUP.data[200:] != OTHER.data[200:]
    assert " ".join(BACKUP.shares.texts[0].split()[3:6]) not in repr(BACKUP)


def test_too_few_wrong_and_other_shares() -> None:
    refused(lambda: open_backup(BACKUP.data, BACKUP.shares.texts[:2]), "backup.too_few")
    refused(lambda: open_backup(BACKUP.data, []), "backup.too_few")
    if BACKUP.shares.identifier != OTHER.shares.identifier:
        refused(lambda: open_backup(BACKUP.data, OTHER.shares.texts), "backup.other")


def test_shares_of_another_key_with_this_backups_identifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensconce.keys.shares.secrets.randbits", lambda _: BACKUP.shares.identifier)
    foreign = split(SecretBuffer.of(KEY), 5, 3)
    refused(lambda: open_backup(BACKUP.data, foreign.texts), "keystore.seal", IntegrityError)


@settings(max_examples=150)
@given(st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(data: st.DataObject) -> None:
    sealed = BACKUP.data
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(sealed) * 8 - 1))
        changed = bytearray(sealed)
        changed[at // 8] ^= 1 << at % 8
        bad = bytes(changed)
    else:
        bad = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    with pytest.raises((IntegrityError, InputError)) as caught:
        open_backup(bad, BACKUP.shares.texts)
    assert caught.value.check in ("keystore.format", "keystore.seal", "backup.other", "backup.file")


def test_a_keystore_is_no_backup_and_a_backup_no_keystore(tmp_path: Path) -> None:
    unlock = new_key_file(tmp_path / "key")
    SealedKeystore.create(FolderPlace(tmp_path / "k"), unlock)
    file = tmp_path / "k" / "keystore.sealed"
    refused(lambda: open_backup(file.read_bytes(), BACKUP.shares.texts), "backup.file")
    file.write_bytes(BACKUP.data)
    error = refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), unlock), "keystore.unlock")
    assert "the shares of a backup" in error.problem


@pytest.mark.parametrize("data", [b"", b"version: 1\n", bytes(500)])
def test_something_else_is_no_backup_and_not_a_damaged_one(data: bytes) -> None:
    refused(lambda: about_backup(data), "backup.file")


def test_a_damaged_backup_is_damaged_and_cannot_be_restored_from_itself() -> None:
    with pytest.raises(IntegrityError) as caught:
        open_backup(BACKUP.data[:-1] + bytes([BACKUP.data[-1] ^ 1]), BACKUP.shares.texts)
    assert "another backup" in str(caught.value.remedy)
    with pytest.raises(IntegrityError):
        about_backup(BACKUP.data[:40])
