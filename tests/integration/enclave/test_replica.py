"""The replica in a launched enclave: its image, the simulated CPU, the owner's server, a real model, real sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ensconce.addresses import Address
from ensconce.client.channel import open_channel
from ensconce.client.predict import Client
from ensconce.client.service import Service
from ensconce.enclave.build import MANIFEST
from ensconce.platform.manifest import parse_manifest
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority

REPOSITORY = Path(__file__).parents[3]


def heldout() -> tuple[list[Any], list[int]]:
    with np.load(REPOSITORY / "examples" / "digits" / "heldout.npz") as data:
        return data["images"][:50].reshape(-1, 8, 8, 1).astype(float).tolist(), data["labels"][:50].tolist()


def test_it_serves_until_it_is_told_to_stop(world: Any, server: ProvisioningServer) -> None:
    replica = world.launch(world.folder(1, 2))
    assert replica.ready()["servables"] == ["digits/1", "digits/2"]
    images, labels = heldout()
    answer = replica.rest("POST", "/v1/models/digits:predict", {"inputs": {"images": images}})
    right = sum(label == guess for label, guess in zip(labels, answer["outputs"]["classes"], strict=True))
    assert right >= 48
    status = replica.rest("GET", "/v1/models/digits")
    assert {entry["state"] for entry in status["model_version_status"]} == {"AVAILABLE"}

    # A client that asks gets a quote of this very enclave over its own channel before it sends anything.
    fresh = Service(
        targets=(Address("127.0.0.1", replica.ready()["grpc"]),),
        server_name="digits.example.test",
        appraiser=server.appraiser,
        authority=world.authority.certificate,
        freshness=True,
    )
    with fresh.attest(fresh.targets[0], "h2") as attested:
        assert attested.fresh is not None
        assert attested.fresh.report.measurements() == attested.acceptance.report.measurements()
        assert attested.fresh.report.report_data != attested.acceptance.report.report_data
    with Client(open_channel(fresh)) as client:
        assert set(client.signatures("digits")["serving_default"].inputs) == {"images"}
        assert client.predict("digits", images)["classes"].tolist() == answer["outputs"]["classes"]

    # What strangers say is not repeated to the host, who reads all that the enclave prints.
    for front in ("grpc", "rest"):
        with socket.create_connection(("127.0.0.1", replica.ready()[front]), 30) as stranger:
            stranger.sendall(b"GET /secret HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(1024):
                    pass

    # Nothing is mapped but the image and the listed files of the system.
    image = f"{(world.bundle / 'enclave' / 'image').resolve()}{os.sep}"
    manifest = parse_manifest((world.bundle / MANIFEST).read_bytes())
    system = {file.path for file in manifest.trusted_files if file.path.startswith("/")}
    for line in Path(f"/proc/{replica.pid}/maps").read_text().splitlines():
        path = [*line.split(maxsplit=5), ""][5]
        assert not Path(path).is_file() or path.startswith(image) or path in system, path

    world.control.signal(replica.pid, signal.SIGTERM)
    assert replica.wait() == 0
    assert replica.names() == ["started", "provisioned", "loaded", "loaded", "ready", "stopped"]
    assert replica.errors() == ""
    assert sorted(path.name for path in replica.folder.iterdir()) == ["enclave", "err", "models", "out"]
    # It tells the names of its keys, and no more of them.
    said = (replica.folder / "out").read_text()
    for key_id in ("model/digits/1", "model/digits/2"):
        assert key_id in said
        assert world.keystore.get(key_id).hex() not in said


def valid_until(replica: Any) -> int:
    """When its last certificate ended."""
    return max(event.get("valid_until", 0) for event in replica.events())


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.mark.usefixtures("server")
def test_a_flipped_bit_in_a_model_ends_it(world: Any) -> None:
    folder = world.folder(1)
    sealed = folder / "models" / "digits" / "1" / "model.bin"
    data = bytearray(sealed.read_bytes())
    data[len(data) // 2] ^= 1
    sealed.write_bytes(data)
    replica = world.launch(folder)
    assert replica.wait() == 6
    assert replica.error()["check"].startswith("encfile.")
    assert "model.bin" in replica.error()["found"]
    assert replica.names() == ["started", "provisioned", "failed", "stopped"]


@pytest.mark.usefixtures("server")
def test_a_version_put_in_anothers_place_ends_it(world: Any) -> None:
    folder = world.folder(1)
    (folder / "models" / "digits" / "1").rename(folder / "models" / "digits" / "2")
    replica = world.launch(folder)
    assert replica.wait() == 6
    assert replica.error()["check"].startswith("encfile.")


@pytest.mark.usefixtures("server")
def test_nothing_to_serve_is_an_error(world: Any) -> None:
    folder = world.folder()
    (folder / "models" / "digits" / "latest").mkdir()
    (folder / "models" / "digits" / "01").mkdir()
    (folder / "models" / "digits" / "5").write_text("no folder")
    replica = world.launch(folder)
    assert replica.wait() == 2
    assert replica.error()["check"] == "replica.models"


def test_an_enclave_that_the_policy_does_not_name_gets_nothing(world: Any, server: ProvisioningServer) -> None:
    accepted, server.appraiser = server.appraiser, world.appraiser
    try:
        replica = world.launch(world.folder(1))
        assert replica.wait() == 4
    finally:
        server.appraiser = accepted
    assert replica.error()["check"] == "policy.mr_enclave"
    assert replica.names() == ["started", "stopped"]


@pytest.mark.usefixtures("server")
def test_a_retired_version_opens_nothing_and_what_serves_it_ends(world: Any, tmp_path: Path, until: Any) -> None:
    with world.serving(lifetime=2) as server:
        world.accept(server, world.build(tmp_path, server.port).mr_enclave)
        replica = world.launch(world.folder(3), tmp_path)
        first = replica.ready()["key_sha256"]
        until(lambda: replica.names()[-1] == "renewed", "the certificate is not renewed")
        assert replica.ready()["key_sha256"] != first
        replica.rest("GET", "/v1/models/digits")
        world.keystore.retire("model/digits/3")
        assert replica.wait() == 4
    assert replica.error()["check"] == "key.retired"
    assert not (replica.folder / "ready.json").exists()

    # Last week's ciphertext, put back: refused when alone, left out beside a version that lives.
    replica = world.launch(world.folder(3))
    assert replica.wait() == 4
    assert replica.error()["check"] == "key.retired"
    replica = world.launch(world.folder(3, 4))
    assert replica.ready()["servables"] == ["digits/4"]
    refused = next(event for event in replica.events() if event["event"] == "refused")
    assert (refused["key_id"], refused["check"]) == ("model/digits/3", "key.retired")


def test_a_server_that_is_away_is_asked_again_until_the_certificate_ends(world: Any, tmp_path: Path) -> None:
    with world.serving(lifetime=2) as server:
        world.accept(server, world.build(tmp_path, server.port).mr_enclave)
        replica = world.launch(world.folder(1), tmp_path)
        replica.ready()
    assert replica.wait() == 5
    assert replica.error()["check"] == "provisioning.unreachable"
    assert time.time() >= valid_until(replica)


def test_an_impostor_in_the_owners_place_does_not_end_it_before_its_certificate_ends(
    world: Any, tmp_path: Path, listen: Callable[..., Any]
) -> None:
    other = dataclasses.replace(world, authority=CertificateAuthority.create("somebody else", int(time.time())))
    with world.serving(lifetime=2) as owner, other.serving(lifetime=2) as impostor, contextlib.ExitStack() as ways:
        asked = owner

        def pass_on(connection: socket.socket) -> None:
            with connection, socket.create_connection(("127.0.0.1", asked.port)) as far:
                there = threading.Thread(target=copy, args=(connection, far))
                there.start()
                copy(far, connection)
                there.join()

        # Between the two there is no moment in which nobody answers.
        place = listen(pass_on)
        ways.callback(place.stop)
        world.accept(owner, world.build(tmp_path, place.address.port).mr_enclave)
        replica = world.launch(world.folder(1), tmp_path)
        replica.ready()
        asked = impostor
        assert replica.wait() == 3
    assert replica.error()["check"] == "provisioning.server_certificate"
    assert time.time() >= valid_until(replica)


def test_sigterm_ends_it_while_it_waits_for_its_keys(world: Any, tmp_path: Path) -> None:
    with socket.create_server(Address("127.0.0.1", 0)) as silent:
        world.build(tmp_path, silent.getsockname()[1])
        replica = world.launch(world.folder(1), tmp_path)
        connection, _ = silent.accept()
        with connection:
            world.control.signal(replica.pid, signal.SIGTERM)
            assert replica.wait() == 0
    assert replica.names() == ["started", "stopped"]
    assert replica.errors() == ""


def test_a_server_that_is_not_there_yet_is_asked_again_until_it_is(
    world: Any, tmp_path: Path, find_port: Callable[[], int], until: Any
) -> None:
    port = find_port()
    identity = world.build(tmp_path, port)
    replica = world.launch(world.folder(1), tmp_path)
    until(lambda: "unanswered" in replica.names(), "nothing is told of the silence")
    # The policy is there before the server: a refusal would be an answer.
    accepting = SimpleNamespace()
    world.accept(accepting, identity.mr_enclave)
    with dataclasses.replace(world, appraiser=accepting.appraiser).serving(lifetime=3600, port=port):
        assert replica.ready()["servables"] == ["digits/1"]
    told = next(event for event in replica.events() if event["event"] == "unanswered")
    assert told["check"] == "provisioning.unreachable"
    # In the same enclave, which says so once.
    assert replica.names().count("started") == 1


def test_sigterm_ends_it_between_two_attempts(
    world: Any, tmp_path: Path, find_port: Callable[[], int], until: Any
) -> None:
    world.build(tmp_path, find_port())
    replica = world.launch(world.folder(1), tmp_path)
    until(lambda: "unanswered" in replica.names(), "nothing is told of the silence")
    world.control.signal(replica.pid, signal.SIGTERM)
    assert replica.wait() == 0
    assert replica.names()[-1] == "stopped"
    assert replica.errors() == ""
