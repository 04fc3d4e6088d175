"""Where collateral comes from, as the deployment file and a client's options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.origin import BundleOrigin, ServerOrigin
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.user_cache import collateral_cache
from ensconce.appraisal.verdict import TcbStatus
from ensconce.cluster.deployment import PlatformEntry
from ensconce.errors import InputError
from ensconce.state.folder import FolderStore

POLICY = Policy(
    roots=("intel",),
    tcb_statuses=(TcbStatus.UP_TO_DATE,),
    identities=(Identity(name="code", mr_enclave=bytes(32), receives=()),),
)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"url": "https://pccs.test:8081"},
        {"url": "http://pccs.test"},
        {"url": "https://pccs.test", "ca_file": "pccs.pem"},
        {"bundle": "bundle.json"},
    ],
)
def test_entries(entry: dict[str, Any] | None) -> None:
    platform = PlatformEntry.model_validate({"kind": "simulated", "pccs": "127.0.0.1:8081", "collateral": entry})
    found = None if platform.collateral is None else platform.collateral.model_dump(exclude_none=True)
    assert found == entry


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"url": "https://pccs.test", "bundle": "bundle.json"},
        {"url": "pccs.test:8081"},
        {"url": "ftp://pccs.test"},
        {"url": "http://pccs.test", "ca_file": "pccs.pem"},
        {"bundle": "bundle.json", "ca_file": "pccs.pem"},
        {"bundle": ""},
        {"url": "https://pccs.test", "key": "x"},
    ],
)
def test_entries_that_are_none(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="collateral"):
        PlatformEntry.model_validate({"kind": "simulated", "pccs": "127.0.0.1:8081", "collateral": entry})


def test_a_client_keeps_it_in_this_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert collateral_cache(POLICY, "https://pccs.test")._origin == ServerOrigin("https://pccs.test", ("intel",))
    ca_file = Path("pccs.pem")
    found = collateral_cache(POLICY, "https://pccs.test", ca_file=ca_file, store=FolderStore(tmp_path))
    assert found._origin == ServerOrigin("https://pccs.test", ("intel",), ca_file)
    assert collateral_cache(POLICY, "bundle.json")._origin == BundleOrigin(Path("bundle.json"))
    assert (tmp_path / "cache" / "ensconce" / "collateral" / "intel").is_dir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        collateral_cache(POLICY, "https://pccs.test")
    assert caught.value.check == "folder.cache"
