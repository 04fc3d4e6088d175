"""An owner's folder for the smallest deployment that there is."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.keys.unlock import ScryptCost


@pytest.fixture(scope="session", autouse=True)
def signs_with(signing_key: RSAPrivateKey) -> Iterator[None]:
    """Every owner of these tests signs with the same key: nothing here is about that key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ensconce.cluster.owner.new_signing_key", lambda: signing_key)
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, deployment: Callable[..., Deployment]) -> Path:
    return OwnerFolder.create(tmp_path_factory.mktemp("made") / "owner", deployment()).path


class Owner(OwnerFolder):
    """An owner's folder that can be looked into."""

    def events(self) -> list[str]:
        return [entry.event for entry in self.verified_log()[1]]

    def fields(self, event: str) -> dict[str, object]:
        """Those of the last entry of that event."""
        return dict(next(entry.fields for entry in reversed(self.verified_log()[1]) if entry.event == event))

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.path)): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def owner(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Owner:
    """A fresh folder, whose keystore a key file opens; a passphrase that is asked for is always the same."""
    # A cost that tests can afford; what is written in earnest is tested with the format.
    monkeypatch.setattr("ensconce.keys.header._WRITTEN_COST", ScryptCost(15, 8, 1))
    path = shutil.copytree(made, tmp_path / "owner")
    return Owner(path, ask=lambda _: "correct horse battery")


@pytest.fixture(scope="session")
def killed() -> Callable[..., None]:
    """Acts in a child process that ends at the ``nth`` call of what ``module`` has under ``name``."""

    def die(act: Callable[[], object], module: object, name: str, nth: int) -> None:
        real, calls = getattr(module, name), iter(range(1, 99))

        def deadly(*arguments: object, **named: object) -> object:
            if next(calls) == nth:
                os._exit(9)
            return real(*arguments, **named)

        setattr(module, name, deadly)
        act()

    def kill(act: Callable[[], object], module: object, name: str, nth: int = 1) -> None:
        child = multiprocessing.get_context("fork").Process(target=die, args=(act, module, name, nth))
        child.start()
        child.join(60)
        assert child.exitcode == 9

    return kill
