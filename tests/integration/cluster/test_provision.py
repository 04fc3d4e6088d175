"""``ensconce provision serve`` as a process: killed at any moment, told to stop, asked how it is."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509

from ensconce.errors import EnsconceError, RefusedError, UnreachableError
from ensconce.provisioning.client import Provisioned


class TestLife:
    def test_it_releases_and_says_so(self, server: Any) -> None:
        server.start()
        granted = server.ask(("digits", 1), secrets=("secret/licence",))
        assert granted.secrets["secret/licence"] == b"the licence " * 20
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        assert server.metric('ensconce_provisioning_releases_total{wire="v2"}') == 1
        head = json.loads(server.get("/log/head")[1])
        size = head["size"]
        proof = json.loads(server.get(f"/log/consistency?first=1&second={size}")[1])
        assert (proof["first"], proof["second"]) == (1, size)
        for path in ("/log/consistency?first=0&second=1", "/log/consistency?first=x&second=1", "/log/consistency"):
            assert server.get(path)[0] == 400
        assert server.get("/nothing")[0] == 404
        assert server.end() == 0
        text = json.dumps(server.lines)
        assert "the licence" not in text
        assert granted.secrets["model/digits/1"].hex() not in text
        assert "key.released" in {line["event"] for line in server.lines}
        assert all({"time", "level", "logger", "event"} <= set(line) for line in server.lines)

    def test_ctrl_c_is_an_interruption(self, server: Any) -> None:
        server.start()
        assert server.end(signal.SIGINT) == 130

    def test_it_lets_requests_end_before_it_does(self, server: Any) -> None:
        server.start()
        with ThreadPoolExecutor(4) as clients:
            asked = [clients.submit(server.ask, ("digits", 1)) for _ in range(4)]
            time.sleep(0.05)
            assert server.end() == 0
        answered = [each.result() for each in asked if each.exception() is None]
        recorded = released(server)
        assert all(serial(each) in recorded for each in answered)
        assert all(isinstance(each.exception(), UnreachableError) for each in asked if each.exception() is not None)

    def test_a_new_policy_is_taken_without_a_moment_without_one(
        self, server: Any, put_in_force: Any, wait_for: Any
    ) -> None:
        server.start()
        going, failures = threading.Event(), []
        going.set()

        def ask_on() -> None:
            while going.is_set():
                try:
                    server.ask(("digits", 1))
                except EnsconceError as error:
                    failures.append(error)

        client = threading.Thread(target=ask_on)
        client.start()
        try:
            assert server.ask(secrets=("secret/licence",)).secrets
            put_in_force(server.owner, 2, "model/digits")
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: server.metric("ensconce_provisioning_policy_serial") == 2, "the new policy")
            assert server.metric("ensconce_provisioning_collateral_refused") == 0
            assert server.metric("ensconce_provisioning_revocations_left_out") == 0
            with pytest.raises(RefusedError) as caught:
                server.ask(secrets=("secret/licence",))
            assert caught.value.check == "policy.receives"
            # And without being told to look.
            put_in_force(server.owner, 3, "model/digits, secret/licence")
            wait_for(lambda: server.metric("ensconce_provisioning_policy_serial") == 3, "the third policy")
            assert server.ask(secrets=("secret/licence",)).secrets
        finally:
            going.clear()
            client.join(60)
        assert failures == []
        assert [line["serial"] for line in server.lines if line["event"] == "policy.taken"] == [2, 3]
        assert server.end() == 0


def serial(granted: Provisioned) -> str:
    return f"{x509.load_pem_x509_certificate(granted.certificate_chain).serial_number:x}"


def released(server: Any) -> dict[str, int]:
    """Position in the log, once all of it was verified, by the serial number of the certificate that was issued."""
    # As the next writer does: what was written and has no head yet is taken in, or cut off.
    server.owner.audit_log(server.owner.keystore())
    _, entries = server.owner.verified_log()
    return {str(entry.fields["certificate_serial"]): entry.seq for entry in entries if entry.event == "key.released"}


def test_whatever_was_released_is_in_the_log_after_any_crash(server: Any) -> None:
    chance = random.Random(20261123)
    received: list[Provisioned] = []
    retired = False
    for round_ in range(3):
        server.start()
        going = threading.Event()
        going.set()

        def ask_on(going: threading.Event = going) -> None:
            while going.is_set():
                with contextlib.suppress(UnreachableError, RefusedError):
                    received.append(server.ask(("digits", 1), ("digits", 2)))

        clients = [threading.Thread(target=ask_on) for _ in range(4)]
        for client in clients:
            client.start()
        before, deadline = len(received), time.monotonic() + 60
        while len(received) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.002)
        if round_ == 1:
            server.owner.retire_model("digits", 1)
            retired = True
        time.sleep(chance.uniform(0.0, 0.3))
        server.end(signal.SIGKILL)
        going.clear()
        for client in clients:
            client.join(60)
        recorded = released(server)
        assert len(received) > before
        # What a client has is in the log: no release without its entry, and no entry lost.
        assert {serial(each) for each in received} <= set(recorded)
    assert retired
    _, entries = server.owner.verified_log()
    end = next(entry.seq for entry in entries if entry.event == "key.retired")
    later = [entry for entry in entries if entry.event == "key.released" and entry.seq > end]
    assert later
    # What was being released while the key was retired may have been logged right after; nothing that began later.
    settled = [entry for entry in later if entry.seq > end + 8]
    assert all("model/digits/1" not in entry.fields["key_ids"] for entry in settled)
    server.start()
    with pytest.raises(RefusedError) as caught:
        server.ask(("digits", 1))
    assert caught.value.check == "key.retired"
    assert server.ask(("digits", 2)).secrets
    assert server.end() == 0
