"""What a replica asks the owner for before it is one; integration tests have whole ones."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensconce.enclave import replica
from ensconce.enclave.config import MAX_LOADED, ModelConfig, ProvisioningConfig, ReplicaConfig, VersionsConfig
from ensconce.enclave.telling import Telling
from ensconce.errors import InputError, RefusedError

Asked = list[list[tuple[str, int]]]


@dataclass
class Granted:
    secrets: Mapping[str, bytes]


def config(**versions: Any) -> ReplicaConfig:
    return ReplicaConfig(
        domain="digits.example.test",
        models=(ModelConfig(name="digits", versions=VersionsConfig(**versions) if versions else None),),
        provisioning=ProvisioningConfig(servers=("127.0.0.1:1",), server_name="owner.example.test", ca_pem="-"),
    )


@pytest.fixture
def lay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Lays folders of versions, for a replica that serves nothing."""
    monkeypatch.setattr(replica, "_MODELS", tmp_path)
    monkeypatch.setattr(replica.platform, "current", lambda: SimpleNamespace(name="none", quote=None))
    return lambda number: (tmp_path / "digits" / str(number)).mkdir(parents=True)


def owner(monkeypatch: pytest.MonkeyPatch, grants: Callable[[Sequence[tuple[str, int]]], Granted]) -> Asked:
    """What she was asked for, each time."""
    asked: Asked = []

    def provision(*arguments: Any) -> Granted:
        asked.append(list(arguments[-1]))
        return grants(arguments[-1])

    monkeypatch.setattr("ensconce.provisioning.client.provision", provision)
    return asked


def test_whoever_serves_has_all_that_refers_to_what_was_granted(
    monkeypatch: pytest.MonkeyPatch, lay: Callable[[int], None]
) -> None:
    left: list[object] = []

    class Serving:
        def __init__(self, *_: object) -> None:
            pass

        def run(self, granted: Granted) -> None:
            seen = weakref.ref(granted)
            del granted
            gc.collect()
            left.append(seen())

    monkeypatch.setattr(replica, "_Replica", Serving)
    owner(monkeypatch, lambda _: Granted({"model/digits/1": bytes(16)}))
    lay(1)
    replica._run(config())
    assert left == [None]


def test_only_versions_that_the_policy_chooses_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, lay: Callable[[int], None]
) -> None:
    def refuse(_: object) -> Granted:
        raise RefusedError("policy.keys", "the owner refuses")

    asked = owner(monkeypatch, refuse)
    for number in (1, 2, 3):
        lay(number)
    with pytest.raises(RefusedError):
        replica._run(config(specific=[2, 7]))
    assert asked == [[("digits", 2)]]
    # Of what is there and may be served, others may be what the owner means.
    with pytest.raises(RefusedError):
        replica._run(config(latest=1))
    assert asked[1:] == [[("digits", 3)], [("digits", 1), ("digits", 2), ("digits", 3)]]


def test_texts_of_others_are_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    logger, loop = logging.getLogger("asyncio"), asyncio.new_event_loop()
    telling = Telling()
    logger.addHandler(telling)
    try:
        future = loop.create_future()
        future.set_exception(ValueError("a client's secret"))
        # What asyncio does with an exception that nobody has asked for.
        context = {"message": "Future exception was never retrieved", "exception": future.exception(), "future": future}
        loop.call_exception_handler(context)
        logger.warning("socket.send() raised exception of %s", "a client's secret")
        logging.getLogger("ensconce.serving.x").addHandler(telling)
        logging.getLogger("ensconce.serving.x").warning("of ours: %d", 1)
    finally:
        logger.removeHandler(telling)
        logging.getLogger("ensconce.serving.x").removeHandler(telling)
        loop.close()
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["logger"], each["level"]) for each in told][:2] == [("asyncio", "ERROR"), ("asyncio", "WARNING")]
    assert told[0]["text"] == "ValueError at an unknown place"
    assert told[2]["text"] == "of ours: 1"
    assert "secret" not in str(told)


def test_errors_that_nobody_catches_are_told_by_their_kind(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for module, hook in ((threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(module, hook, getattr(module, hook))  # as it was, in the end

    def fail() -> None:
        raise ValueError("a client's secret")

    class Failing:
        def __del__(self) -> None:
            fail()

    class Serving:
        def __init__(self, *_: object) -> None:
            thread = threading.Thread(target=fail)
            thread.start()
            thread.join()
            Failing()
            raise ValueError("a client's secret")

    ended: list[int] = []
    monkeypatch.setattr(replica, "_run", Serving)
    monkeypatch.setattr(replica.ReplicaConfig, "load", lambda _: None)
    monkeypatch.setattr(replica.os, "_exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["replica", "server.json"])
    monkeypatch.setattr(sys, "path", sys.path)
    monkeypatch.setattr(replica.signal, "signal", lambda *_: None)
    monkeypatch.setattr(replica.logging, "basicConfig", lambda **_: None)
    replica.main()
    said = capfd.readouterr()
    assert ended == [1]
    assert said.out.count("ValueError at ") == 2
    assert "replica.bug" in said.err
    assert "secret" not in said.out + said.err


def test_nothing_is_asked_for_where_there_is_nothing_or_too_much(
    monkeypatch: pytest.MonkeyPatch, lay: Callable[[int], None]
) -> None:
    asked = owner(monkeypatch, lambda _: Granted({}))
    with pytest.raises(InputError, match="nothing to serve"):
        replica._run(config())
    for number in range(1, MAX_LOADED + 2):
        lay(number)
    with pytest.raises(InputError, match="too many versions"):
        replica._run(config())
    assert asked == []
