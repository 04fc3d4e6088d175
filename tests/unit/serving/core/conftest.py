"""A configuration in force: what the folders hold is what is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.tfserving.messages import ModelServerConfig
from ensconce.tfserving.text import parse_text

Make = Callable[..., ServerCore]


@pytest.fixture(scope="session")
def config() -> Callable[..., Any]:
    def make(*models: str) -> Any:
        text = "".join(f'config {{ model_platform: "tensorflow" {model} }}' for model in models)
        return parse_text(ModelServerConfig, f"model_config_list {{ {text} }}".encode(), "test")

    return make


@pytest.fixture(scope="session")
def model() -> Callable[..., Any]:
    def make(name: str, folder: Path, more: str = "") -> str:
        return f'name: "{name}" base_path: "{folder}" {more}'

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a model with versions 1 and 2."""
    for version in ("1", "00000002"):
        (tmp_path / "m" / version).mkdir(parents=True)
    return tmp_path / "m"


@pytest.fixture
def core(loading: Any) -> Iterator[Make]:
    made: list[ServerCore] = []

    def make(options: CoreOptions | None = None, **more: Any) -> ServerCore:
        # Folders are looked into when the test says so.
        made.append(ServerCore(loading, options or CoreOptions(file_system_poll_wait_seconds=0), **more))
        return made[-1]

    yield make
    for held in loading.held.values():
        held.set()
    for each in made:
        each.close()
