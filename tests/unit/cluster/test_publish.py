"""What the owner publishes: each list follows the last, is in her log, and is what anybody can check with her key."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ensconce.appraisal.published import Image, Measurements, Source
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.publish import PUBLISHED, add_enclave, parse_image, parse_source, publish, withdraw
from ensconce.enclave.sign import sign_manifest
from ensconce.errors import EnsconceError
from ensconce.platform.manifest import Manifest, parse_manifest
from ensconce.publication.file import PublishedFile, parse_published

NOW = 1_790_000_000
MANIFEST = b'[libos]\nentrypoint = "a"\n[sgx]\nenclave_size = "256M"\nmax_threads = 4\nisvprodid = 1\nisvsvn = 2\n'


def refused(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


@pytest.fixture
def build(owner: OwnerFolder, signing_key: RSAPrivateKey) -> Callable[..., str]:
    """Puts an enclave's signature into the bundle; gives its measurement."""

    def make(measurement: int, debug: bool = False) -> str:
        mr_enclave = bytes([measurement]) * 32
        manifest: Manifest = replace(parse_manifest(MANIFEST), debug=debug)
        folder = owner.bundle / "enclave"
        folder.mkdir(exist_ok=True)
        signed = sign_manifest(manifest, mr_enclave, signing_key, date=datetime.date(2026, 11, 23))
        (folder / "server.sig").write_bytes(signed)
        return mr_enclave.hex()

    return make


def add(owner: OwnerFolder, **more: Any) -> PublishedFile:
    name, images, source = more.get("name"), more.get("images", ()), more.get("source")
    return publish(owner, add_enclave(owner, name, images, source), 30, lambda: NOW)


def checked(owner: OwnerFolder) -> Measurements:
    return parse_published((owner.path / PUBLISHED).read_bytes(), [owner.public_key()]).measurements


def test_a_list_grows_and_shrinks(owner: OwnerFolder, build: Callable[..., str]) -> None:
    first = build(1)
    image, source = Image(name="registry.test/server", sha256="ab" * 32), Source(commit="c" * 40, uri="git+https://a")
    file = add(owner, name="release 1", images=[image], source=source)
    assert file == parse_published((owner.path / PUBLISHED).read_bytes(), [owner.public_key()])
    assert (file.measurements.serial, file.measurements.service) == (1, "d.test")
    assert file.measurements.enclaves[0].images == (image,)
    assert (file.measurements.created, file.measurements.expires) == ("2026-09-21T14:13:20Z", "2026-10-21T14:13:20Z")
    statement = json.loads(file.envelope.body())
    assert {each["name"] for each in statement["subject"]} == {"release 1.sig", "registry.test/server"}

    second = build(2)
    assert [each.mr_enclave for each in add(owner).measurements.enclaves] == [first, second]
    withdrawn = publish(owner, withdraw(first.upper(), "it reads too far"), 30, lambda: NOW)
    assert [each.mr_enclave for each in withdrawn.measurements.enclaves] == [second]
    assert withdrawn.measurements.withdrawn[0].reason == "it reads too far"
    renewed = publish(owner, None, 60, lambda: NOW + 5)
    assert (renewed.measurements.enclaves, renewed.measurements.serial) == (withdrawn.measurements.enclaves, 4)
    # From every head that was shown before, a proof leads to the newest.
    assert [each.first for each in renewed.continues] == [2, 3, 4]
    assert all(each.second == renewed.proof.head.size for each in renewed.continues)
    entries = [entry for entry in owner.verified_log()[1] if entry.event == "published"]
    assert [entry.fields["serial"] for entry in entries] == [1, 2, 3, 4]
    assert checked(owner) == renewed.measurements
    assert not (owner.path / "published.next.json").exists()


def test_published_again_it_keeps_its_day(owner: OwnerFolder, build: Callable[..., str]) -> None:
    build(1)
    first = add(owner).measurements.enclaves[0]
    (again,) = publish(owner, add_enclave(owner, "named", (), None), 1, lambda: NOW + 99).measurements.enclaves
    assert (again.published, again.name, first.name) == (first.published, "named", "d.test 01010101")


def test_what_cannot_be_published(owner: OwnerFolder, build: Callable[..., str]) -> None:
    assert refused(lambda: add(owner)).check == "file.read"
    assert refused(lambda: publish(owner, None, 30)).check == "publish.nothing"
    assert refused(lambda: publish(owner, withdraw("00" * 32, "why"), 30)).check == "publish.unknown"
    measurement = build(1, debug=True)
    assert refused(lambda: add(owner)).check == "publish.debug"
    build(1)
    assert refused(lambda: add(owner, name="a\nb")).check == "publish.name"
    add(owner, name="one")
    assert refused(lambda: publish(owner, withdraw(measurement, "x" * 201), 30)).check == "publish.reason"
    build(2)
    assert refused(lambda: add(owner, name="one")).check == "publish.list"
    publish(owner, withdraw(measurement, "why"), 30)
    build(1)
    assert refused(lambda: add(owner)).check == "publish.withdrawn"
    assert checked(owner).serial == 2
    for text in ("a", "@sha256:" + "a" * 64, "a@sha256:AB", "a@sha512:" + "a" * 64):
        assert refused(lambda text=text: parse_image(text)).check == "publish.image"
    assert refused(lambda: parse_source("main")).check == "publish.source"
    assert parse_source("git+ssh://a@b/c@" + "a" * 40) == Source(commit="a" * 40, uri="git+ssh://a@b/c")


def test_a_withdrawal_outlives_its_reason(
    owner: OwnerFolder, build: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensconce.cluster.publish.MAX_WITHDRAWN", 1)
    measured = []
    for number in (1, 2):
        measured.append(build(number))
        add(owner)
        publish(owner, withdraw(measured[-1], f"number {number}"), 30)
    assert [each.mr_enclave for each in checked(owner).withdrawn] == measured[1:]
    # The list no longer says that this one was withdrawn; the log does.
    build(1)
    assert refused(lambda: add(owner)).check == "publish.withdrawn"


def test_a_folder_that_was_put_back_is_noticed(owner: OwnerFolder, build: Callable[..., str]) -> None:
    measurement = build(1)
    add(owner)
    before = (owner.path / PUBLISHED).read_bytes()
    publish(owner, withdraw(measurement, "why"), 30)
    newest = (owner.path / PUBLISHED).read_bytes()
    (owner.path / PUBLISHED).write_bytes(before)
    assert refused(lambda: publish(owner, None, 30)).check == "publish.behind"
    (owner.path / PUBLISHED).unlink()
    assert refused(lambda: publish(owner, None, 30)).check == "publish.behind"
    (owner.path / PUBLISHED).write_bytes(newest)
    assert publish(owner, None, 30).measurements.serial == 3


@pytest.mark.parametrize("at", ["before the log", "after the log"])
def test_a_crash_on_the_way(
    at: str, owner: OwnerFolder, build: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(1)
    add(owner)
    build(2)

    def crash(*_: object, **__: object) -> object:
        raise KeyboardInterrupt

    where = "cluster.publish.prove_entry" if at == "after the log" else "audit.log.AuditLog.append"
    with monkeypatch.context() as patch:
        patch.setattr(f"ensconce.{where}", crash)
        with pytest.raises(KeyboardInterrupt):
            add(owner)
    assert (owner.path / "published.next.json").exists()
    renewed = publish(owner, None, 30).measurements
    # What the log has was published; what it has not was not.
    assert (len(renewed.enclaves), renewed.serial) == ((2, 3) if at == "after the log" else (1, 2))


def test_one_at_a_time(owner: OwnerFolder, build: Callable[..., str]) -> None:
    build(1)

    def change(lists: Any, _: str) -> Any:
        assert refused(lambda: add(owner)).check == "publish.busy"
        return lists

    publish(owner, change, 30)
