from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ensconce.models.seal
from ensconce.encfile import decrypt_bytes, fingerprint
from ensconce.errors import InputError
from ensconce.keys import KeyEntry, Keystore, Kind, SealedKeystore
from ensconce.models.description import parse_and_verify
from ensconce.models.load import open_sealed

if TYPE_CHECKING:
    from conftest import Owner

WHOLE = [
    "digits/1.json",
    "digits/1/ensconce-contents.json",
    "digits/1/extra/empty",
    "digits/1/extra/labels.txt",
    "digits/1/model.bin",
    "digits/1/model.xml",
    "digits/1/signatures.json",
]


def test_a_sealed_version_is_ciphertext_key_and_signed_description(owner: Owner) -> None:
    done: list[int] = []
    description = owner.seal(progress=done.append)
    assert owner.listing() == WHOLE
    assert sum(done) == sum(len(data) for data in owner.plain().values())
    assert owner.keystore.entries() == (KeyEntry("model/digits/1", "wrap", 1_769_860_800, None),)
    data = (owner.models / "digits" / "1.json").read_bytes()
    assert parse_and_verify(data, owner.signing_key.public_key()) == description
    assert (description.key_id, description.created) == ("model/digits/1", 1_769_860_800)
    assert [f"digits/1/{file.path}" for file in description.files] == WHOLE[1:]
    for file in description.files:
        path = owner.models / "digits" / "1" / file.path
        assert (file.fingerprint, file.encrypted_size) == (fingerprint(path).hex(), path.stat().st_size)
        plain = decrypt_bytes(path, owner.key(), verify_path=f"models/digits/1/{file.path}")
        assert len(plain) == file.size
    for path in owner.models.rglob("*"):
        assert path.is_dir() or owner.key() not in path.read_bytes()


def test_each_version_has_its_own_key(owner: Owner) -> None:
    owner.seal(1)
    owner.seal(2)
    assert owner.key(1) != owner.key(2)


def test_an_existing_version_is_never_changed(owner: Owner) -> None:
    owner.seal()
    before = {path: (owner.models / path).read_bytes() for path in owner.listing()}
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "model.exists"
    assert {path: (owner.models / path).read_bytes() for path in owner.listing()} == before


@pytest.mark.parametrize("retired", [False, True])
def test_a_version_whose_key_exists_is_refused(owner: Owner, retired: bool) -> None:
    owner.seal()
    shutil.rmtree(owner.models / "digits")
    if retired:
        owner.keystore.retire("model/digits/1")
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "key.exists"
    assert ("retired" in str(caught.value.found)) is retired
    assert not (owner.models / "digits").exists()


@pytest.mark.parametrize("left_out", ["model.xml", "model.bin", "signatures.json"])
def test_a_version_that_its_engine_cannot_serve(owner: Owner, left_out: str) -> None:
    (owner.source / left_out).unlink()
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "model.layout"
    assert left_out in str(caught.value.found)
    assert owner.keystore.entries() == ()
    assert not owner.models.exists()


def test_links_in_the_source_are_refused(owner: Owner) -> None:
    (owner.source / "extra" / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "model.layout"


def test_names_and_versions_are_checked_first(owner: Owner) -> None:
    with pytest.raises(InputError) as caught:
        owner.seal(version=0)
    assert caught.value.check == "model.version"


def test_a_source_that_grows_meanwhile_is_refused(owner: Owner) -> None:
    def grow(_: int) -> None:
        with (owner.source / "signatures.json").open("ab") as file:
            file.write(bytes(10_000))

    with pytest.raises(InputError) as caught:
        owner.seal(progress=grow)
    assert caught.value.check in ("model.read", "encfile.input_changed")
    assert owner.listing() == []
    assert owner.keystore.entries() == ()


def test_a_model_that_another_process_is_sealing(owner: Owner) -> None:
    (owner.models / "digits").mkdir(parents=True)
    handle = os.open(owner.models / "digits", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "model.busy"
    os.close(handle)
    owner.seal()


def test_a_folder_that_cannot_be_made(owner: Owner) -> None:
    owner.models.parent.mkdir()
    owner.models.write_bytes(b"a file")
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "model.write"


# --- interruptions


class Interrupted(BaseException):
    """What Ctrl-C is, or the process's end."""


class Meddled:
    """A real keystore, with something that happens before or after each put."""

    def __init__(self, real: SealedKeystore, before: Callable[[], None], after: Callable[[], None]) -> None:
        self._real, self._before, self._after = real, before, after

    def put(self, key_id: str, secret: bytes, *, kind: Kind) -> None:
        self._before()
        self._real.put(key_id, secret, kind=kind)
        self._after()

    def get(self, key_id: str) -> bytes:
        return self._real.get(key_id)

    def retire(self, key_id: str) -> None:
        self._real.retire(key_id)

    def entries(self) -> tuple[KeyEntry, ...]:
        return self._real.entries()


def nothing() -> None:
    pass


def interrupted_seal(owner: Owner, step: str, interrupt: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Seal version 1, and be interrupted at ``step``."""

    def on_call(owner_of: object, attribute: str, when: Callable[..., bool]) -> None:
        real = getattr(owner_of, attribute)

        def meddled(*args: object, **kwargs: object) -> object:
            if when(*args):
                interrupt()
            return real(*args, **kwargs)

        patch.setattr(owner_of, attribute, meddled)

    keystore: Keystore = owner.keystore
    progress: Callable[[int], None] | None = None
    seal_module = ensconce.models.seal
    if step == "encrypting":
        progress = lambda _: interrupt()  # noqa: E731
    elif step == "signing":
        on_call(seal_module, "write_aside", lambda path, _: path.name == "description.json")
    elif step == "syncing":
        on_call(seal_module, "sync_folder", lambda _: True)
    elif step == "before the key":
        keystore = Meddled(owner.keystore, interrupt, nothing)
    elif step == "after the key":
        keystore = Meddled(owner.keystore, nothing, interrupt)
    elif step == "describing":
        on_call(seal_module, "write_aside", lambda path, _: path.name == "1.json")
    elif step == "renaming":
        on_call(Path, "rename", lambda path, _: path.name == "files")
    elif step == "cleaning up":
        on_call(shutil, "rmtree", lambda path, **_: True)
    owner.seal(keystore=keystore, progress=progress)


STEPS = {
    "encrypting": "nothing",
    "signing": "nothing",
    "syncing": "nothing",
    "before the key": "nothing",
    "after the key": "key",
    "describing": "key",
    "renaming": "key",
    "cleaning up": "version",
}


def check_what_is_left(owner: Owner, left: str) -> None:
    """Neither a servable half nor a lost key."""
    served = (owner.models / "digits" / "1").exists()
    assert served is (left == "version")
    assert bool(owner.keystore.entries()) is (left != "nothing")
    if served:
        assert open_sealed(owner.models, "digits", 1, owner.key()) == owner.plain()


def check_going_on(owner: Owner, left: str) -> None:
    key = owner.key() if left != "nothing" else None
    if left == "version":
        with pytest.raises(InputError) as caught:
            owner.seal()
        assert caught.value.check == "model.exists"
    else:
        owner.seal()
    assert key in (None, owner.key())
    assert owner.listing() == WHOLE
    assert [path.name for path in (owner.models / "digits").glob(".*")] == []
    assert open_sealed(owner.models, "digits", 1, owner.key()) == owner.plain()


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_by_an_exception(owner: Owner, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupted_seal(owner, step, interrupt, patch)
    check_what_is_left(owner, STEPS[step])
    if STEPS[step] == "nothing":
        assert not (owner.models / "digits").exists()
    check_going_on(owner, STEPS[step])


def _die(owner: Owner, step: str) -> None:
    interrupted_seal(owner, step, lambda: os._exit(9), pytest.MonkeyPatch())


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_by_death(owner: Owner, step: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=_die, args=(owner, step))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    check_what_is_left(owner, STEPS[step])
    check_going_on(owner, STEPS[step])


@pytest.mark.parametrize(
    "change", ["content", "length", "added", "removed", "staging damaged", "staging gone", "retired"]
)
def test_after_an_interruption_other_files_are_another_version(
    owner: Owner, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupted_seal(owner, "after the key", interrupt, patch)
    staging = owner.models / "digits" / ".1.sealing"
    data = bytearray((owner.source / "model.bin").read_bytes())
    if change == "content":
        data[-1] ^= 1
        (owner.source / "model.bin").write_bytes(data)
    elif change == "length":
        (owner.source / "model.bin").write_bytes(data + b"x")
    elif change == "added":
        (owner.source / "more").write_bytes(b"")
    elif change == "removed":
        (owner.source / "extra" / "empty").unlink()
    elif change == "staging damaged":
        (staging / "files" / "model.xml").write_bytes(bytes(4096))
    elif change == "staging gone":
        shutil.rmtree(staging)
    else:
        owner.keystore.retire("model/digits/1")
    with pytest.raises(InputError) as caught:
        owner.seal()
    assert caught.value.check == "key.exists"
    assert not (owner.models / "digits" / "1").exists()
    owner.seal(2)
    assert open_sealed(owner.models, "digits", 2, owner.key(2)) == owner.plain()


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(InputError) as caught:
            owner.seal()
    assert "No space left" in caught.value.problem
    assert owner.listing() == []
    assert owner.keystore.entries() == ()
    owner.seal()
