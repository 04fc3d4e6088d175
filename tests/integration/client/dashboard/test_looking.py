"""What the dashboard makes of replicas, servers and logs, true ones and others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ensconce.addresses import Address
from ensconce.audit.folder import FolderLog
from ensconce.audit.remote import RemoteLog
from ensconce.cluster.owner import OwnerFolder
from ensconce.dashboard.logs import Entries, Heads
from ensconce.dashboard.page import about
from ensconce.dashboard.replicas import Place, Seen, look_at
from ensconce.dashboard.watcher import Replicas, Sources, Watcher
from ensconce.errors import EnsconceError, InputError

METRICS = "/monitoring/prometheus/metrics"
PAGES = {
    METRICS: b':tensorflow:serving:request_latency_count{model_name="digits",API="Predict"} 5\n',
    "/openapi.json": json.dumps({"paths": {"/v1/models/digits": {}, "/v1/models/digits:predict": {}}}).encode(),
    "/v1/models/digits": b'{"model_version_status": [{"version": "3", "state": "AVAILABLE", "status": {}}]}',
}


def look(world: Any, address: Address | None, **options: Any) -> Seen:
    return look_at(Place("replica-1", address), world.service(Address("127.0.0.1", 1), **options), METRICS)


def test_an_accepted_replica_is_asked(world: Any, telling: Callable[..., Address]) -> None:
    seen = look(world, telling(world.replica(), PAGES))
    assert seen.error is None
    assert seen.accepted is not None
    assert seen.reading is not None
    assert [(each.model, each.version, each.state) for each in seen.versions] == [("digits", "3", "AVAILABLE")]


def test_our_own_server_is_understood(world: Any, serve: Callable[..., Any]) -> None:
    seen = look(world, serve(world.replica())[1])
    assert seen.accepted is not None
    assert seen.reading is None
    assert seen.versions == ()


@pytest.mark.parametrize(("how", "check"), [("other", "policy.mr_enclave"), ("thief", "evidence.binding")])
def test_one_that_is_refused_is_asked_nothing(how: str, check: str, world: Any, recorder: Callable[..., Any]) -> None:
    who = world.replica(mr_enclave=bytes(32)) if how == "other" else world.thief(world.replica(), self_signed=False)
    server = recorder(who)
    seen = look(world, server.target)
    assert seen.accepted is None
    assert isinstance(seen.error, EnsconceError)
    assert seen.error.exit_status in (3, 4)
    assert server.received == b""


def test_one_that_is_not_there_is_unreachable(world: Any, find_port: Callable[[], int]) -> None:
    for address in (None, Address("127.0.0.1", find_port())):
        seen = look(world, address)
        assert seen.error is not None
        assert seen.error.exit_status == 5


@pytest.mark.parametrize(
    "pages",
    [
        {METRICS: b"\xff" * 1000, "/openapi.json": b"[" * 100_000},
        {METRICS: b"x 1\n" * 1_000_000, "/openapi.json": b'{"paths": 1}'},
        {
            "/openapi.json": b'{"paths": {"/v1/models/a": 1}}',
            "/v1/models/a": b'{"model_version_status": [1, {"status": 2}]}',
        },
        {"/openapi.json": json.dumps({"paths": {f"/v1/models/{n}": 1 for n in range(100)}}).encode()},
    ],
)
def test_what_an_accepted_replica_tells_is_bounded_all_the_same(
    pages: dict[str, bytes], world: Any, telling: Callable[..., Address]
) -> None:
    seen = look(world, telling(world.replica(), pages))
    assert seen.accepted is not None
    assert len(seen.versions) <= 32
    assert seen.reading is None or len(seen.reading.samples) < 2


def test_one_replica_at_two_addresses_is_told_and_counted_once(world: Any, telling: Callable[..., Address]) -> None:
    who = world.replica()
    places = [Place(f"replica-{n}", telling(who, PAGES)) for n in (1, 2)]
    watcher = Watcher(Sources(replicas=Replicas(lambda: places, world.service(Address("127.0.0.1", 1)), METRICS)))
    watcher.look()
    assert len(watcher.snapshot.points[0].readings) == 1
    page = about("digits", watcher.snapshot, watcher.sources, world.now).decode()
    assert page.count("reached at 2 addresses") == 2
    assert "SIMULATED" in page


def test_a_log_that_grows_is_consistent_and_one_that_is_bent_stays_red(log: Any, tmp_path: Path) -> None:
    heads = Heads([log], tmp_path / "head.json", log.key.public_key())
    log.written.append("key.added", key_id="a")
    assert (heads.look().checks, heads.look().checks) == (0, 1)
    log.written.append("key.added", key_id="b")
    assert heads.look().checks == 2
    log.fork()
    bent = heads.look().bent
    assert bent is not None
    assert bent.check in ("merkle.consistency", "audit.fork")
    log.shown = log.written
    assert heads.look().bent is bent
    assert len(list(tmp_path.glob("head.json.*.bent"))) == 1


def test_entries_are_checked_and_the_last_about_keys_are_kept(log: Any) -> None:
    entries = Entries(log.storage, log.key.public_key())
    log.written.append("key.released", key_ids=["model/digits/1"], identity="server")
    log.written.append("model.sealed", model="digits")
    assert entries.look().bent is None
    assert [each.event for each in entries.recent] == ["key.released"]
    log.written.append_many([("key.refused", {"peer": str(number)}) for number in range(64)])
    log.written.append_many([("key.refused", {"peer": str(number)}) for number in range(64, 128)])
    seen = entries.look()
    assert seen.head is not None
    assert seen.head.size == 130
    assert [each.fields["peer"] for each in entries.recent] == [str(number) for number in range(127, 27, -1)]
    file = log.folder / "log.jsonl"
    log.written.append("key.refused", peer="last")
    file.write_bytes(file.read_bytes().replace(b'"peer":"last"', b'"peer":"lost"'))
    bent = entries.look().bent
    assert bent is not None
    assert all(each.fields.get("peer") != "lost" for each in entries.recent)


def test_a_provisioning_server_is_asked_for_its_health_its_numbers_and_its_log(
    find_port: Callable[[], int],
    owner_of: Callable[..., OwnerFolder],
    put_in_force: Callable[[OwnerFolder, int, str], None],
    server_of: Callable[[OwnerFolder, int, int], Any],
    tmp_path: Path,
) -> None:
    port, status = find_port(), find_port()
    owner = owner_of([port], status)
    owner.keystore().put("model/digits/1", bytes(range(16)), kind="wrap")
    put_in_force(owner, 1, "model/digits")
    server = server_of(owner, port, status)
    server.start()
    url = f"http://127.0.0.1:{server.status}"
    key = server.owner.public_key()
    heads = Heads([RemoteLog(url, timeout=5.0)], tmp_path / "head.json", key)
    watcher = Watcher(Sources(servers=[url], heads=heads, entries=Entries(FolderLog(server.owner.audit_folder), key)))
    watcher.look()
    server.ask(("digits", 1))
    watcher.look()
    snapshot = watcher.snapshot
    assert snapshot.servers[0].error is None
    assert snapshot.heads is not None
    assert (snapshot.heads.bent, snapshot.heads.checks) == (None, 1)
    assert snapshot.events[0].event == "key.released"
    page = about("digits", snapshot, watcher.sources, snapshot.at).decode()
    assert "model/digits/1" in page
    assert "Consistent" in page
    server.kill()
    watcher.look()
    assert watcher.snapshot.servers[0].error is not None
    assert "Not reached" in about("digits", watcher.snapshot, watcher.sources, snapshot.at).decode()


class TestServer:
    def test_it_is_entered_once_and_answers_under_its_own_name(self, dashboard: Callable[..., Any]) -> None:
        url = dashboard(Sources()).url
        home = url.partition("enter")[0]
        with httpx.Client(trust_env=False) as client, httpx.Client(trust_env=False) as other:
            assert client.get(home).status_code == 401
            assert client.get(url, follow_redirects=True).status_code == 200
            assert client.get(home).status_code == 200
            assert other.get(url).status_code == 403
            assert client.get(home, headers={"host": "evil.test"}).status_code == 421
            assert client.post(home).status_code == 405
            assert client.request("POST", home, content=b"x" * 3000).status_code == 413
            refused = client.get(home + "nothing")
            assert refused.status_code == 404
            assert "default-src 'none'" in refused.headers["content-security-policy"]

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "dash.example.test"])
    def test_beyond_this_machine_it_speaks_tls_only(self, host: str, dashboard: Callable[..., Any]) -> None:
        with pytest.raises(InputError) as caught:
            dashboard(Sources(), listen=Address(host, 0))
        assert caught.value.check == "dashboard.cleartext"
