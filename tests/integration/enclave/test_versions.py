"""Versions that come and go while a replica serves: in a launched enclave, with the owner's server."""

from __future__ import annotations

import hashlib
import shutil
import signal
import struct
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from ensconce.enclave.config import BatchingConfig, ModelConfig, ServingConfig, VersionsConfig
from ensconce.evidence.spki import spki_of
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.sealing import SEALING_KEY_PATH, signed_part
from ensconce.serving.warmup import WARMUP_FILE
from ensconce.tfserving.messages import PredictionLog, ReloadConfigRequest
from ensconce.tfserving.records import masked_crc32c

Until = Callable[[Callable[[], object], str], Any]
IMAGE = {"inputs": {"images": [[[[0.0]] * 8] * 8]}}


def states(replica: Any) -> dict[int, tuple[str, str]]:
    """State and error of each version, as a client is told."""
    status = replica.rest("GET", "/v1/models/digits")["model_version_status"]
    return {int(each["version"]): (each["state"], each["status"]["error_code"]) for each in status}


def said(replica: Any, event: str, version: int | None = None) -> list[dict[str, Any]]:
    found = [each for each in replica.events() if each["event"] == event]
    return [each for each in found if version is None or each["version"] == version]


def served(replica: Any) -> list[str]:
    return replica.ready()["servables"]  # type: ignore[no-any-return]


def record(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


class Caller:
    """A client that never stops asking."""

    def __init__(self, replica: Any) -> None:
        self.failures: list[BaseException] = []
        self.answers = 0
        self._stop = threading.Event()
        self._replica = replica
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self._replica.rest("POST", "/v1/models/digits:predict", IMAGE)
                self.answers += 1
            except BaseException as error:
                self.failures.append(error)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


@pytest.fixture
def caller() -> Iterator[Callable[[Any], Caller]]:
    callers: list[Caller] = []

    def start(replica: Any) -> Caller:
        callers.append(Caller(replica))
        return callers[-1]

    yield start
    for each in callers:
        each.stop()


@pytest.fixture(scope="module")
def latest(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle whose enclave serves the latest version, and has labels, batching and metrics."""
    bundle = tmp_path_factory.mktemp("latest")
    model = ModelConfig(
        name="digits", versions=VersionsConfig(latest=1), labels={"stable": 1, "next": 2}, precision="f32"
    )
    batching = BatchingConfig(max_batch_size=8, batch_timeout_micros=100, allowed_batch_sizes=[4, 8])
    serving = ServingConfig(poll_seconds=0.05, batching=batching, metrics_path="/metrics")
    with world.serving(lifetime=24 * 3600) as server:
        world.accept(server, world.build(bundle, server.port, model, serving).mr_enclave)
        yield bundle


def test_a_new_version_is_served_without_a_lost_request(
    world: Any, latest: Path, until: Until, caller: Callable[[Any], Caller]
) -> None:
    replica = world.launch(world.folder(1), latest)
    assert served(replica) == ["digits/1"]
    asking = caller(replica)
    until(lambda: asking.answers, "no answer")
    world.lay(replica.folder, 2)
    until(lambda: served(replica) == ["digits/2"], "version 2 is not served alone")
    answers = asking.answers
    until(lambda: asking.answers > answers + 3, "no answer after the switch")
    asking.stop()
    assert asking.failures == []
    assert [each["key_id"] for each in said(replica, "granted")] == ["model/digits/2"]
    until(lambda: states(replica) == {1: ("END", "OK"), 2: ("AVAILABLE", "OK")}, "version 1 does not end")
    # The labels are those that were measured.
    replica.rest("POST", "/v1/models/digits/labels/next:predict", IMAGE)
    with pytest.raises(AssertionError, match="Specific\\(digits, 1\\)"):
        replica.rest("POST", "/v1/models/digits/labels/stable:predict", IMAGE)

    # What the host takes away is served on, and what it puts in its place is older, so nobody wants it.
    shutil.rmtree(replica.folder / "models" / "digits" / "2")
    until(lambda: said(replica, "missing", 2), "nothing is said of the missing version")
    replica.rest("POST", "/v1/models/digits:predict", IMAGE)
    assert served(replica) == ["digits/2"]
    assert states(replica)[1][0] == "END"

    # Nor does the older version under the newer number: the keys differ.
    world.lay(replica.folder, 1, 2)
    world.lay(replica.folder, 1, 3)
    until(lambda: said(replica, "failed", 3), "version 3 does not fail")
    assert said(replica, "failed", 3)[0]["check"].startswith("encfile.")
    until(lambda: states(replica)[3] == ("END", "DATA_LOSS"), "version 3 has no error")
    assert served(replica) == ["digits/2"]
    replica.rest("POST", "/v1/models/digits:predict", IMAGE)

    # The real one, in its place.
    shutil.rmtree(replica.folder / "models" / "digits" / "3")
    world.lay(replica.folder, 3)
    until(lambda: served(replica) == ["digits/3"], "version 3 is not served once it is right")
    world.control.signal(replica.pid, signal.SIGTERM)
    assert replica.wait() == 0
    assert replica.errors() == ""
    assert said(replica, "log") == []


def test_what_cannot_be_served_takes_nothing_down(
    world: Any, server: ProvisioningServer, until: Until, caller: Callable[[Any], Caller], tmp_path: Path
) -> None:
    assert server.port
    replica = world.launch(world.folder(1))
    assert served(replica) == ["digits/1"]
    asking = caller(replica)
    # No such key; a flipped bit; no model; a file too many; half a copy, which is completed later.
    world.lay(replica.folder, 1, 77)
    damaged = world.bundle / "models" / "digits" / "2" / "model.bin"
    target = world.lay(replica.folder, 3)
    data = bytearray((target / "model.bin").read_bytes())
    data[len(data) // 2] ^= 1
    (target / "model.bin").write_bytes(data)
    (tmp_path / "broken").mkdir()
    for name in ("model.bin", "model.xml", "signatures.json"):
        (tmp_path / "broken" / name).write_text("{}")
    world.seal(50, tmp_path / "broken")
    world.lay(replica.folder, 50)
    (world.lay(replica.folder, 4) / "more").write_text("added")
    half = replica.folder / "models" / "digits" / "2"
    half.mkdir()
    shutil.copy(damaged, half)
    checks = {77: "key.unknown", 3: "encfile.node_mac", 50: "signatures.", 4: "model.contents", 2: "model.contents"}
    for version, check in checks.items():
        failed = until(lambda version=version: said(replica, "failed", version), f"version {version} does not fail")
        assert failed[0]["check"].startswith(check) or version == 50, failed
    assert served(replica) == ["digits/1"]
    shutil.rmtree(half)
    world.lay(replica.folder, 2)
    until(lambda: served(replica) == ["digits/1", "digits/2"], "version 2 is not served once it is whole")
    asking.stop()
    assert asking.failures == []
    assert asking.answers > 0
    errors = {version for version, (state, _) in states(replica).items() if state == "END"}
    assert errors == {3, 4, 50, 77}
    assert replica.errors() == ""


def test_a_retired_version_goes_alone(world: Any, tmp_path: Path, until: Until) -> None:
    for version in (60, 61):
        world.seal(version)
    with world.serving(lifetime=2) as server:
        world.accept(server, world.build(tmp_path, server.port).mr_enclave)
        replica = world.launch(world.folder(60, 61), tmp_path)
        assert served(replica) == ["digits/60", "digits/61"]
        world.keystore.retire("model/digits/61")
        until(lambda: served(replica) == ["digits/60"], "the retired version is still served")
        assert said(replica, "withdrawn", 61)[0]["check"] == "key.retired"
        replica.rest("POST", "/v1/models/digits:predict", IMAGE)
        with pytest.raises(AssertionError, match="Specific\\(digits, 61\\)"):
            replica.rest("POST", "/v1/models/digits/versions/61:predict", IMAGE)
        # The next renewals ask for what is left.
        renewed = len(said(replica, "renewed"))
        until(lambda: len(said(replica, "renewed")) > renewed, "the certificate is not renewed")
        assert served(replica) == ["digits/60"]
        assert not said(replica, "loaded", 61)[1:]
        world.control.signal(replica.pid, signal.SIGTERM)
        assert replica.wait() == 0


def test_recorded_requests_are_replayed_before_a_version_serves(
    world: Any, server: ProvisioningServer, until: Until, tmp_path: Path
) -> None:
    assert server.port
    source = Path(__file__).parents[3] / "examples" / "digits" / "openvino"
    for version, name in ((70, "images"), (71, "pictures")):
        folder = tmp_path / str(version)
        shutil.copytree(source, folder)
        log = PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = "recorded"
        request.model_spec.version.value = 5
        request.inputs[name].dtype = 1
        for size in (1, 8, 8, 1):
            request.inputs[name].tensor_shape.dim.add(size=size)
        request.inputs[name].tensor_content = bytes(256)
        (folder / WARMUP_FILE).parent.mkdir()
        (folder / WARMUP_FILE).write_bytes(record(log.SerializeToString()))
        world.seal(version, folder)
    replica = world.launch(world.folder(70))
    assert served(replica) == ["digits/70"]
    world.lay(replica.folder, 71)
    until(lambda: said(replica, "failed", 71), "a request that does not fit is no failure")
    assert said(replica, "failed", 71)[0]["check"] == "serving.invalid_argument"
    assert served(replica) == ["digits/70"]


def test_without_any_that_loads_it_ends_with_the_newest_ones_error(world: Any, server: ProvisioningServer) -> None:
    assert server.port
    folder = world.folder(1)
    world.lay(folder, 1, 2)
    (folder / "models" / "digits" / "1" / "model.xml").unlink()
    replica = world.launch(folder)
    assert replica.wait() == 6
    assert replica.error()["check"] == "encfile.metadata_mac"
    assert [each["version"] for each in said(replica, "failed")] == [2, 1]


def test_a_retired_latest_is_no_reason_not_to_start(world: Any, latest: Path) -> None:
    world.seal(90)
    world.keystore.retire("model/digits/90")
    replica = world.launch(world.folder(1, 2, 90), latest)
    assert served(replica) == ["digits/2"]
    assert said(replica, "refused")[0]["key_id"] == "model/digits/90"
    assert states(replica)[90][0] == "END"


def test_metrics_are_where_they_were_measured_to_be(world: Any, latest: Path) -> None:
    replica = world.launch(world.folder(1), latest)
    replica.rest("POST", "/v1/models/digits:predict", IMAGE)
    page = replica.text("GET", "/metrics")
    assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} 1' in page
    assert "load_attempt_count" in page


def check_sealing_key(replica: Any) -> None:
    """As measured, it has one, which the key of its certificate vouches for."""
    told = replica.rest("GET", SEALING_KEY_PATH)
    certificate, key, signature = (b64decode(told[name]) for name in ("certificate", "key", "signature"))
    public = x509.load_der_x509_certificate(certificate).public_key()
    assert hashlib.sha256(spki_of(public)).hexdigest() == replica.ready()["key_sha256"]
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(signature, signed_part(key), ec.ECDSA(SHA256()))


def test_clients_change_no_versions_unless_that_was_measured(
    world: Any, server: ProvisioningServer, tmp_path: Path, until: Until
) -> None:
    assert server.port
    request = ReloadConfigRequest()
    entry = request.config.model_config_list.config.add(name="digits", base_path="/models/digits")
    entry.model_version_policy.latest.num_versions = 1
    entry.version_labels["stable"] = 2
    replica = world.launch(world.folder(1, 2))
    with pytest.raises(grpc.RpcError) as refused:
        replica.reload(request)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert served(replica) == ["digits/1", "digits/2"]

    with world.serving(lifetime=24 * 3600) as other:
        serving = ServingConfig(poll_seconds=0.05, allow_reload=True, sealed_bodies="accepted")
        world.accept(other, world.build(tmp_path, other.port, serving=serving).mr_enclave)
        replica = world.launch(world.folder(1, 2), tmp_path)
        assert served(replica) == ["digits/1", "digits/2"]
        check_sealing_key(replica)
        replica.reload(request)
        until(lambda: served(replica) == ["digits/2"], "version 1 is still served")
        replica.rest("POST", "/v1/models/digits/labels/stable:predict", IMAGE)
        entry.name = "letters"
        with pytest.raises(grpc.RpcError) as refused:
            replica.reload(request)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        replica.rest("POST", "/v1/models/digits/labels/stable:predict", IMAGE)
