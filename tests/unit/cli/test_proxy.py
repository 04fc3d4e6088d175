from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import InputError

FILES = ["--policy", "policy.yaml", "--ca", "ca.pem"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a.test:1"], "--listen and HOST:PORT"),
        (["--listen", "127.0.0.1:0"], "--listen and HOST:PORT"),
        (["--rest", "a.test:1"], "--listen-rest and --rest"),
        (["--listen-rest", "127.0.0.1:0"], "--listen-rest and --rest"),
        (["a.test:1", "--listen", "127.0.0.1:0", "--tls-cert", "c"], "--tls-cert and --tls-key"),
        (["a.test:1", "--listen", "127.0.0.1:0", "--tls-key", "k"], "--tls-cert and --tls-key"),
    ],
)
def test_options_that_belong_together(arguments, problem) -> None:
    result = CliRunner().invoke(app, ["proxy", *arguments, *FILES])
    assert isinstance(result.exception, InputError)
    assert problem in result.exception.problem


def test_nothing_to_do() -> None:
    result = CliRunner().invoke(app, ["proxy", *FILES])
    assert isinstance(result.exception, InputError)
    assert result.exception.check == "proxy.nothing"
