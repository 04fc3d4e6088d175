from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.errors import InputError

# A point of its curve: the base point (RFC 8032, section 5.1).
KEY = f"ed25519:58{'66' * 31}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "one way to reach the server"),
        (("--plain", "--tls-ca", "x"), "one way to reach the server"),
        (("--policy", "x"), "and --ca belong together"),
        (("--published", "x", "--publisher", KEY), "and --ca belong together"),
        (("--published", "x", "--publisher", KEY, "--plain"), "one way to reach the server"),
        (("--plain", "--ca", "x"), "and --ca belong together"),
        (("--tls-ca", "x", "--tls-cert", "x"), "--tls-cert and --tls-key"),
        (("--plain", "--tls-cert", "x", "--tls-key", "x"), "--tls-cert and --tls-key"),
        (("--plain", "--requests", "1", "--loop", "1"), "--requests and --loop"),
        (("--plain", "--rate", "1", "--loop", "1"), "--loop counts requests"),
        (("--plain", "--shape", "x"), "no shape"),
        (("--plain", "--shape", "x=1x-2"), "no shape"),
        (("--plain", "--input", "a.npy", "--input", "b.npy"), "one file"),
        (("--plain", "--protocol", "v2-rest", "--signature", "s"), "have no signatures"),
        (("--plain", "--rate", "0"), "the rate cannot be this"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["bench", "127.0.0.1:1", "--model", "m", *arguments])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
