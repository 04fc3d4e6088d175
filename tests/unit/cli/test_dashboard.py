from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from ensconce.cli import main
from ensconce.errors import InputError


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
        (("--owner", "/nowhere"), "not an owner's folder"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: tuple[str, ...], problem: str) -> None:
    assert problem in str(refusal(*arguments))
