from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ensconce.addresses import Address
from ensconce.cli import main
from ensconce.cli.dashboard import running_in
from ensconce.dashboard.replicas import Place
from ensconce.errors import InputError, UnreachableError


def refusal(*arguments: str) -> Any:
    result = CliRunner().invoke(main.app, ["dashboard", *arguments])
    assert isinstance(result.exception, InputError), result.output
    return result.exception


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "there is nothing to look at"),
        (("a.test:1", "--host", "host"), "two ways to name replicas"),
        (("a.test:1",), "replicas have to be judged"),
        (("--provisioning", "http://127.0.0.1:1", "--tls-cert", "a"), "belong together"),
        (("--provisioning", "127.0.0.1:1"), "no URL of a status address"),
        (("--provisioning", "http://127.0.0.1:1", "--listen", "0.0.0.0:0"), "does not listen in the clear"),
        (("--provisioning", "http://127.0.0.1:1", "--keep", "head.json"), "no log to keep the head of"),
        (("--owner", "/nowhere"), "not an owner's folder"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: tuple[str, ...], problem: str) -> None:
    assert problem in str(refusal(*arguments))


READY = {"name": "replica-1", "state": "ready", "rest_port": 8501, "error": None}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"replicas": 1},
        {"replicas": [1]},
        {"replicas": [READY | {"rest_port": "many"}]},
        {"replicas": [READY | {"error": "yes"}]},
        {"replicas": [READY | {"error": {}, "name": None} | {"rest_port": {}}, {}]},
    ],
)
def test_a_host_may_answer_anything(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensconce.cluster.host.status", lambda _: answer)
    with pytest.raises(UnreachableError, match=r"dashboard\.host"):
        running_in(Path("host"))()


def test_what_the_host_says_of_replicas_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {"name": 2, "state": "failed", "rest_port": None, "error": {"problem": "no", "check": "policy.debug"}}
    monkeypatch.setattr("ensconce.cluster.host.status", lambda _: {"replicas": [READY, failed]})
    assert running_in(Path("host"))() == [
        Place("replica-1", Address("127.0.0.1", 8501), "ready"),
        Place("2", None, "failed: no [policy.debug]"),
    ]
