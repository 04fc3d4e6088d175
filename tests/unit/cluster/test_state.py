"""Where a deployment keeps what its servers share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensconce.audit.database import DatabaseLog
from ensconce.audit.folder import FolderLog
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.state import open_state
from ensconce.errors import InputError
from ensconce.state.database import DatabaseStore
from ensconce.state.folder import FolderStore


def test_the_owners_folder_unless_something_is_said(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment())
    state = open_state(owner)
    assert isinstance(state.store, FolderStore)
    assert isinstance(state.log, FolderLog)
    assert owner.verified_log()[0].size == 1


@pytest.mark.parametrize("relative", [True, False])
def test_sqlite(tmp_path: Path, relative: bool, deployment: Callable[..., Deployment]) -> None:
    path = tmp_path / "owner" / "state #1?.db" if relative else tmp_path / "elsewhere.db"
    entry = {"kind": "sqlite", "path": path.name if relative else str(path)}
    owner = OwnerFolder.create(tmp_path / "owner", deployment(state=entry))
    assert path.exists()
    assert not (tmp_path / "owner" / "audit").exists()
    state = open_state(owner)
    assert isinstance(state.store, DatabaseStore)
    assert isinstance(state.log, DatabaseLog)
    with state.store.locked("x") as slot:
        slot.write(b"x")
    assert open_state(OwnerFolder.open(tmp_path / "owner")).store.read("x") == b"x"
    assert owner.verified_log()[0].size == 1


def test_a_database_that_is_gone_is_not_made_anew(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment(state={"kind": "sqlite", "path": str(tmp_path / "s.db")}))
    keystore = owner.keystore()
    for file in tmp_path.glob("s.db*"):
        file.unlink()
    for use in (lambda: owner.audit_log(keystore), owner.verified_log, owner.keystore):
        with pytest.raises(InputError, match=r"\[state\.missing\]"):
            use()
    assert not list(tmp_path.glob("s.db*"))


def test_two_deployments_do_not_share_a_log(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    entry = {"kind": "sqlite", "path": str(tmp_path / "s.db")}
    OwnerFolder.create(tmp_path / "one", deployment(state=entry))
    before = OwnerFolder.open(tmp_path / "one").verified_log()
    with pytest.raises(Exception, match=r"key|keystore"):
        OwnerFolder.create(tmp_path / "two", deployment(state=entry))
    assert not (tmp_path / "two").exists()
    assert OwnerFolder.open(tmp_path / "one").verified_log() == before


def test_the_urls_file_is_private(tmp_path: Path, deployment: Callable[..., Deployment]) -> None:
    owner = OwnerFolder.create(tmp_path / "owner", deployment())
    shutil.copy(owner.deployment_file, tmp_path / "before")
    (owner.path / "url").write_text("postgresql://u:secret@127.0.0.1:1/x")
    (owner.path / "url").chmod(0o644)
    text = deployment(state={"kind": "postgresql", "url_file": "url"}).dump()
    owner.deployment_file.write_text(text)
    with pytest.raises(InputError, match=r"state\.url_file"):
        open_state(owner)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"kind": "redis"},
        {"kind": "folder", "path": "x"},
        {"kind": "sqlite"},
        {"kind": "sqlite", "path": ""},
        {"kind": "sqlite", "path": 1},
        {"kind": "postgresql", "path": "x"},
        {"kind": "postgresql", "url": "postgresql://u:secret@h/d"},
    ],
)
def test_a_wrong_entry_is_named(entry: dict[str, Any], deployment: Callable[..., Deployment]) -> None:
    with pytest.raises(InputError, match="state"):
        deployment(state=entry)
