"""A client that believes a published list: real replicas, a file or a web server, and hosts that serve old copies."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from ensconce.addresses import Address
from ensconce.cli.main import app
from ensconce.client.predict import Client
from ensconce.client.published import REFRESH_S, PublishedList
from ensconce.client.report import Report, examine
from ensconce.client.report_html import page_of
from ensconce.client.report_text import lines_of
from ensconce.client.service import Service
from ensconce.errors import EnsconceError
from ensconce.publication.file import MAX_FILE
from ensconce.publication.remembered import admit
from ensconce.state.folder import FolderStore
from ensconce.times import utc_text

DOMAIN = "digits.example.test"
CODE, OTHER_CODE = bytes(range(32)), bytes(32)
LATER = 2**32


@pytest.fixture
def key(publisher: Any, tmp_path: Path) -> str:
    return f"ed25519:{publisher.public.public_bytes_raw().hex()}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "published.json"


@pytest.fixture
def verified(world: Any, place: Path, key: str, tmp_path: Path) -> Any:
    """Verifies a replica by what is published, alone or with a policy."""

    def verify(target: Address, policy: Any = None) -> Report:
        store = FolderStore(tmp_path / "state")
        published = PublishedList(place, [key], roots=(world.vendor.root_name,), store=store)
        service = Service.open(
            str(target),
            policy,
            authority=world.authority.certificate,
            collateral=world.appraiser().collateral,
            server_name=DOMAIN,
            published=published,
        )
        return examine(service, target)

    return verify


def failed(report: Report) -> tuple[str, str]:
    (step,) = [each for each in report.steps if each.state == "failed"]
    assert step.error is not None
    return step.name, step.error.check


def test_what_is_published_is_accepted(world, recorder, publisher, place, verified) -> None:
    end = world.now + 3600
    place.write_bytes(publisher.publish(world.measured(publisher, CODE, expires=utc_text(end))).to_bytes())
    server = recorder(world.replica())
    for policy in (None, world.appraiser().policy):
        report = verified(server.target, policy)
        assert report.error is None
        assert report.accepted is not None
        # A connection ends with the list, not with what outlives it.
        assert report.accepted.valid_until == end
        (step,) = [each for each in report.steps if each.name == "published"]
        assert {each.check for each in step.held} >= {
            "published.signature",
            "published.proof",
            "published.rollback",
            "published.expired",
            "published.mr_enclave",
        }
    assert server.received == b""


def test_a_report_says_where_the_code_was_published(world, recorder, publisher, place, verified, key) -> None:
    source = {"commit": "5a" * 20, "uri": "https://example.test/digits.git"}
    (enclave,) = world.measured(publisher, CODE).enclaves
    published = publisher.measurements(
        enclaves=[enclave.model_dump(mode="json", exclude_none=True) | {"source": source}]
    )
    place.write_bytes(publisher.publish(published).to_bytes())
    target = recorder(world.replica()).target
    alone, beside = verified(target), verified(target, world.appraiser().policy)
    for report in (alone, beside):
        told = report.to_json_object()["published"]
        assert (told["source"], told["publisher"], told["serial"]) == (str(place), key, 1)
        assert (told["enclave"]["source"], told["enclave"]["mr_enclave"]) == (source, CODE.hex())
        text, page = "\n".join(lines_of(report)), page_of(report)
        for shown in (str(place), key, source["commit"], source["uri"]):
            assert shown in text
            assert shown in page
        assert text.count("end of the list: ") == 1
    assert alone.to_json_object()["policy_sha256"] is None
    assert "policy none: " in "\n".join(lines_of(alone))
    assert "none: what is published decides" in page_of(alone)
    assert beside.to_json_object()["policy_sha256"] == world.appraiser().policy.sha256
    unpublished = verified(recorder(world.replica(mr_enclave=OTHER_CODE)).target).to_json_object()["published"]
    assert (unpublished["source"], unpublished["enclave"]) == (str(place), None)


def test_anything_else_is_refused(world, recorder, publisher, place, verified) -> None:
    policy = world.appraiser().policy
    target = recorder(world.replica()).target
    place.write_bytes(publisher.publish(world.measured(publisher, OTHER_CODE)).to_bytes())
    assert failed(verified(target, policy)) == ("published", "published.mr_enclave")
    assert failed(verified(target)) == ("published", "published.mr_enclave")
    # Published, and not what the policy names: both have to accept.
    assert failed(verified(recorder(world.replica(mr_enclave=OTHER_CODE)).target, policy))[0] == "identity"
    gone = {"mr_enclave": CODE.hex(), "reason": "old", "withdrawn": "2026-02-01T00:00:00Z"}
    withdrawn = world.measured(publisher, OTHER_CODE, serial=2, withdrawn=[gone])
    place.write_bytes(publisher.publish(withdrawn).to_bytes())
    report = verified(target, policy)
    assert (failed(report), report.exit_status) == (("published", "published.withdrawn"), 4)


def test_a_host_that_serves_an_old_copy(world, recorder, publisher, place, verified, tmp_path) -> None:
    policy, target = world.appraiser().policy, recorder(world.replica()).target
    old = publisher.publish(world.measured(publisher, CODE)).to_bytes()
    place.write_bytes(old)
    assert verified(target, policy).error is None
    place.write_bytes(publisher.publish(world.measured(publisher, serial=2)).to_bytes())
    assert failed(verified(target, policy))[1] == "published.mr_enclave"
    place.write_bytes(old)
    assert failed(verified(target, policy)) == ("published", "published.rollback")
    other = type(publisher)(tmp_path / "other-log")
    for serial in (1, 2, 3):
        forked = other.publish(world.measured(other, CODE, serial=serial))
    place.write_bytes(forked.to_bytes())
    report = verified(target, policy)
    assert (failed(report), report.exit_status) == (("published", "merkle.consistency"), 6)


def refused(act: Any) -> str:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value.check


@pytest.fixture
def client(world: Any, place: Path, key: str, tmp_path: Path) -> Iterator[Any]:
    """A client of a replica that goes by what is published alone; it is tried again soon."""
    made = []

    def connect(target: Address) -> Client:
        made.append(
            Client.connect(
                str(target),
                None,
                authority=world.authority.certificate,
                collateral=world.appraiser().collateral,
                server_name=DOMAIN,
                published=PublishedList(
                    place, [key], roots=(world.vendor.root_name,), store=FolderStore(tmp_path / "state")
                ),
                connections=1,
            )
        )
        return made[-1]

    yield connect
    for each in made:
        each.close()


def test_predictions_until_a_withdrawal(world, grpc_replica, publisher, place, client, tmp_path) -> None:
    place.write_bytes(publisher.publish(world.measured(publisher, CODE)).to_bytes())
    first = grpc_replica(world.replica())
    connected = client(first.target)
    inputs = {"images": np.ones((1, 2), np.float32)}
    assert connected.predict("digits", inputs)["images"].tolist() == [[2, 2]]
    gone = {"mr_enclave": CODE.hex(), "reason": "it leaks", "withdrawn": "2026-02-01T00:00:00Z"}
    place.write_bytes(publisher.publish(world.measured(publisher, serial=2, withdrawn=[gone])).to_bytes())
    first.stop()
    second = grpc_replica(world.replica(), port=first.port)
    assert refused(lambda: connected.predict("digits", inputs, timeout=20)) == "published.withdrawn"
    assert refused(lambda: client(second.target)) == "published.none"
    assert second.served == 0


def test_a_new_release_needs_no_new_client(world, grpc_replica, publisher, place, client, wait_for) -> None:
    place.write_bytes(publisher.publish(world.measured(publisher, CODE)).to_bytes())
    first = grpc_replica(world.replica())
    connected = client(first.target)
    place.write_bytes(publisher.publish(world.measured(publisher, CODE, OTHER_CODE, serial=2)).to_bytes())
    first.stop()
    second = grpc_replica(world.replica(mr_enclave=OTHER_CODE), port=first.port)
    assert connected.predict("digits", {"images": np.ones((1, 2), np.float32)}, timeout=20)["images"].shape == (1, 2)
    assert second.served == 1


def test_predict_on_the_command_line(world, serve, recorder, publisher, place, key, tmp_path, monkeypatch) -> None:
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    (tmp_path / "ca.pem").write_bytes(world.authority.certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "collateral.json").write_text(json.dumps(world.collateral.to_object()))
    np.save(tmp_path / "rows.npy", np.ones((1, 2), np.float32))

    def predict(target: Address) -> str:
        words = ["predict", str(target), "--server-name", DOMAIN, "--root", world.vendor.root_name, "--model", "digits"]
        words += ["--published", str(place), "--publisher", key, "--ca", str(tmp_path / "ca.pem")]
        words += ["--pccs", str(tmp_path / "collateral.json"), "--input", str(tmp_path / "rows.npy")]
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, EnsconceError), done.output
        return done.exception.check

    place.write_bytes(publisher.publish(world.measured(publisher, CODE)).to_bytes())
    # Accepted: this is the server's own answer, which has no model.
    assert predict(serve(world.replica())[0]) == "predict.not_found"
    other = recorder(world.replica(mr_enclave=OTHER_CODE))
    assert predict(other.target) == "published.mr_enclave"
    assert bytes(other.received) == b""


def test_the_end_and_the_service(publisher, place, key, tmp_path) -> None:
    place.write_bytes(publisher.publish(publisher.measurements(CODE)).to_bytes())
    store = FolderStore(tmp_path / "state")
    assert refused(lambda: PublishedList(place, [key], store=store).measurements("other.test")) == "published.service"
    late = PublishedList(place, [key], store=store, now=lambda: LATER)
    assert refused(lambda: late.measurements(DOMAIN)) == "published.expired"
    # Neither was worth remembering.
    assert list(tmp_path.glob("state/published*")) == []


def test_whom_to_believe(publisher, place, key, tmp_path) -> None:
    for publishers in ([], [key] * 17):
        assert refused(lambda publishers=publishers: PublishedList(place, publishers)) == "published.publisher"
    # A point for which everybody can sign.
    assert refused(lambda: PublishedList(place, [f"ed25519:{'00' * 32}"])) == "published.publisher"
    assert refused(lambda: PublishedList(place, [tmp_path / "owner.pub"])) == "file.read"


def test_this_user_s_state_remembers(publisher, place, key, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    old = publisher.publish(publisher.measurements(CODE)).to_bytes()
    place.write_bytes(publisher.publish(publisher.measurements(CODE, serial=2)).to_bytes())
    PublishedList(place, [key]).measurements(DOMAIN)
    place.write_bytes(old)
    assert refused(lambda: PublishedList(place, [key]).measurements(DOMAIN)) == "published.rollback"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert refused(lambda: PublishedList(place, [key])) == "folder.state"


@pytest.fixture
def web() -> Iterator[Any]:
    """A web server that answers with ``server.body``, or 503 without one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked += 1
            assert server.may_answer.wait(60)
            self.send_response(200 if server.body else 503)
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        body = b""
        asked = 0

    server = Server(("127.0.0.1", 0), Handler)
    server.may_answer = threading.Event()
    server.may_answer.set()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


def test_a_url_is_asked_again_each_hour(web, publisher, key, tmp_path) -> None:
    clock = [1_790_000_000]
    url = f"http://127.0.0.1:{web.server_address[1]}/published.json"
    list_ = PublishedList(url, [key], store=FolderStore(tmp_path / "state"), now=lambda: clock[0])
    assert refused(lambda: list_.measurements(DOMAIN)) == "published.source"
    web.body = publisher.publish(publisher.measurements(CODE, expires="2026-09-22T00:00:00Z")).to_bytes()
    assert [list_.measurements(DOMAIN).serial for _ in range(3)] == [1, 1, 1]
    assert web.asked == 2
    web.body = publisher.publish(publisher.measurements(CODE, serial=2, expires="2026-09-22T00:00:00Z")).to_bytes()
    clock[0] += REFRESH_S
    assert list_.measurements(DOMAIN).serial == 2
    # Another process of this user has seen a newer one: this one asks at once, too.
    newest = publisher.publish(publisher.measurements(CODE, serial=3, expires="2026-09-22T00:00:00Z"))
    admit(FolderStore(tmp_path / "state"), newest)
    assert refused(lambda: list_.measurements(DOMAIN)) == "published.rollback"
    web.body = newest.to_bytes()
    assert list_.measurements(DOMAIN).serial == 3
    # Away for a while: the list at hand is good, until its end and no longer.
    web.body = b""
    clock[0] += REFRESH_S
    assert list_.measurements(DOMAIN).serial == 3
    clock[0] += 24 * REFRESH_S
    assert refused(lambda: list_.measurements(DOMAIN)) == "published.expired"


def test_a_web_page_is_no_list_and_is_asked_again_at_once(web, publisher, key, tmp_path) -> None:
    url = f"http://127.0.0.1:{web.server_address[1]}/published.json"
    list_ = PublishedList(url, [key], store=FolderStore(tmp_path / "state"))
    web.body = b"<html>"
    assert refused(lambda: list_.measurements(DOMAIN)) == "published.file"
    web.body = b" " * (MAX_FILE + 1)
    assert refused(lambda: list_.measurements(DOMAIN)) == "published.source"
    web.body = publisher.publish(publisher.measurements(CODE)).to_bytes()
    assert list_.measurements(DOMAIN).serial == 1


def test_nobody_waits_for_the_request_of_another(web, publisher, key, tmp_path, wait_for) -> None:
    clock = [1_790_000_000]
    url = f"http://127.0.0.1:{web.server_address[1]}/published.json"
    list_ = PublishedList(url, [key], store=FolderStore(tmp_path / "state"), now=lambda: clock[0])
    web.body = publisher.publish(publisher.measurements(CODE)).to_bytes()
    assert list_.measurements(DOMAIN).serial == 1
    web.may_answer.clear()
    web.body = publisher.publish(publisher.measurements(CODE, serial=2)).to_bytes()
    clock[0] += REFRESH_S
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(list_.measurements(DOMAIN).serial))
    asking.start()
    wait_for(lambda: web.asked == 2, "the first thread's request")
    # Judged by the list at hand, while the answer is not there; and nobody else has asked.
    assert [list_.measurements(DOMAIN).serial for _ in range(2)] == [1, 1]
    assert (web.asked, found) == (2, [])
    web.may_answer.set()
    asking.join(30)
    assert (found, list_.measurements(DOMAIN).serial) == ([2], 2)


def test_what_another_process_has_seen_is_fetched_at_once(web, publisher, key, tmp_path) -> None:
    url = f"http://127.0.0.1:{web.server_address[1]}/published.json"
    list_ = PublishedList(url, [key], store=FolderStore(tmp_path / "state"))
    web.body = publisher.publish(publisher.measurements(CODE)).to_bytes()
    assert list_.measurements(DOMAIN).serial == 1
    newer = publisher.publish(publisher.measurements(CODE, serial=2))
    admit(FolderStore(tmp_path / "state"), newer)
    web.body = newer.to_bytes()
    assert list_.measurements(DOMAIN).serial == 2
