"""What the dashboard makes of replicas, servers and logs, true ones and others."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from ensconce.addresses import Address
from ensconce.audit.folder import FolderLog
from ensconce.audit.public import read_head
from ensconce.audit.remote import RemoteLog
from ensconce.cli.dashboard import addresses_of
from ensconce.cluster.owner import OwnerFolder
from ensconce.dashboard.auth import names_in
from ensconce.dashboard.logs import Entries, Heads
from ensconce.dashboard.page import about
from ensconce.dashboard.replicas import Place, Seen, look_at
from ensconce.dashboard.watcher import Replicas, Sources, Watcher
from ensconce.errors import EnsconceError, InputError
from ensconce.serving.tls import ServingCertificate

METRICS = "/monitoring/prometheus/metrics"
PAGES = {
    METRICS: b':tensorflow:serving:request_latency_count{model_name="digits",API="Predict"} 5\n'
    b"ensconce_serving_requests 2\n",
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
    watcher.look()
    assert [value for _, value in watcher.snapshot.series["inside"]] == [2.0]
    page = about("digits", watcher.snapshot, watcher.sources, world.now).decode()
    assert page.count("reached at 2 addresses") == 2
    assert "SIMULATED" in page


def test_a_certificates_age_is_since_it_was_issued(world: Any, telling: Callable[..., Address]) -> None:
    place = Place("replica-1", telling(world.replica(issued=world.now - 3600), PAGES))
    sources = Sources(replicas=Replicas(lambda: [place], world.service(Address("127.0.0.1", 1)), METRICS))
    watcher = Watcher(sources)
    watcher.look()
    assert ">60 min old, " in about("digits", watcher.snapshot, sources, world.now).decode()


def test_a_name_that_resolves_to_several_addresses_is_asked_at_each(
    world: Any, telling: Callable[..., Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a headless Service of Kubernetes does; there they differ in the address, here in the port.
    ports = [telling(world.replica(), PAGES).port for _ in range(3)]

    def resolve(host: str, *_: object, **__: object) -> list[Any]:
        assert host == "replicas.example.test"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]

    service = world.service(Address("replicas.example.test", 8501))
    with monkeypatch.context() as patch:
        patch.setattr("ensconce.client.service.socket.getaddrinfo", resolve)
        places = addresses_of(service)()
    assert [place.name for place in places] == [f"127.0.0.1:{port}" for port in ports]
    watcher = Watcher(Sources(replicas=Replicas(lambda: places, service, METRICS)))
    watcher.look()
    assert all(each.accepted is not None for each in watcher.snapshot.seen)
    assert len({each.accepted.replica_id for each in watcher.snapshot.seen if each.accepted}) == 3


def test_replicas_that_take_their_time_do_not_hide_a_log_that_is_bent(
    log: Any, tmp_path: Path, world: Any, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    go_on = threading.Event()

    def slow(place: Place, *_: object) -> Seen:
        assert go_on.wait(60)
        return Seen(place=place, error=InputError("a", "b"))

    monkeypatch.setattr("ensconce.dashboard.watcher.look_at", slow)
    heads = Heads([log], tmp_path / "head.json", log.key.public_key())
    log.written.append("key.added", key_id="a")
    heads.look()
    log.fork()
    replicas = Replicas(lambda: [Place("replica-1", None)], world.service(Address("127.0.0.1", 1)), METRICS)
    watcher = Watcher(Sources(replicas=replicas, heads=heads))
    watcher.start()
    wait_for(lambda: watcher.snapshot.heads, "what the log shows")
    assert watcher.snapshot.heads is not None
    assert watcher.snapshot.heads.bent is not None
    assert watcher.snapshot.at == 0
    # What is under way must not hold up the end of the process.
    assert all(each.daemon for each in threading.enumerate() if each.name.startswith("dashboard"))
    watcher.stop()
    go_on.set()


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
    (evidence,) = tmp_path.glob("head.json.*.bent")
    # A dashboard that is started again still knows, until somebody has taken the evidence away.
    again = Heads([log], tmp_path / "head.json", log.key.public_key()).look().bent
    assert again is not None
    assert (again.check, again.found) == ("audit.bent", evidence.name)
    evidence.unlink()
    seen = Heads([log], tmp_path / "head.json", log.key.public_key()).look()
    assert (seen.bent, seen.checks) == (None, 1)


@pytest.mark.parametrize("put_back", [True, False])
def test_a_log_on_this_machine_that_is_exchanged_between_two_runs_is_bent(
    put_back: bool, log: Any, tmp_path: Path
) -> None:
    key, kept = log.key.public_key(), tmp_path / "head.json"
    log.written.append("key.released", key_ids=["model/digits/1"])
    before = {each.name: each.read_bytes() for each in log.folder.iterdir()}
    log.written.append("key.refused", peer="a")
    assert Entries(log.storage, key, None, kept).look().bent is None
    known = read_head(kept, key)
    assert known.size == 2
    same = Entries(log.storage, key, known, kept)
    assert same.look().bent is None
    assert [each.event for each in same.recent] == ["key.refused", "key.released"]
    if put_back:
        for name, content in before.items():
            (log.folder / name).write_bytes(content)
        storage = log.storage
    else:
        log.fork()
        storage = FolderLog(log.folder.with_name("other"))
    entries = Entries(storage, key, known, kept)
    bent = entries.look().bent
    assert bent is not None
    assert entries.recent == ()
    assert read_head(kept, key) == known


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
    file.write_bytes(file.read_bytes().replace(b'"peer":"lost"', b'"peer":"last"'))
    again = entries.look()
    assert again.bent is bent
    assert again.head is not None
    assert again.head.size == 131


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

    def test_with_tls_it_answers_under_the_certificates_names(
        self, world: Any, dashboard: Callable[..., Any], tmp_path: Path
    ) -> None:
        who = world.replica()
        certificate = ServingCertificate(who.key_pem, who.chain_pem)
        names = names_in(who.chain_pem)
        assert names == {"digits.example.test"}
        token = "t" * 40
        url = dashboard(Sources(), token=token, certificate=certificate, names=names).url
        assert url.startswith("https://127.0.0.1:")
        (tmp_path / "ca.pem").write_bytes(world.authority.certificate.public_bytes(Encoding.PEM))
        trusted = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        name = {"host": f"digits.example.test:{httpx.URL(url).port}"}
        as_named = {"sni_hostname": "digits.example.test"}
        with httpx.Client(verify=trusted, trust_env=False, base_url=url) as client:
            entered = client.post("/enter", data={"token": token}, headers=name, extensions=as_named)
            cookie = entered.headers["set-cookie"]
            assert {"Secure", "HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
            assert token not in cookie
            shown = client.get("/", headers=name | {"cookie": cookie.partition(";")[0]}, extensions=as_named)
            assert shown.status_code == 200
            assert client.get("/", headers={"host": "evil.test"}, extensions=as_named).status_code == 421
        with pytest.raises(httpx.HTTPError):
            httpx.get(url.replace("https", "http"), trust_env=False)

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "dash.example.test"])
    def test_beyond_this_machine_it_speaks_tls_only(self, host: str, dashboard: Callable[..., Any]) -> None:
        with pytest.raises(InputError) as caught:
            dashboard(Sources(), listen=Address(host, 0))
        assert caught.value.check == "dashboard.cleartext"
