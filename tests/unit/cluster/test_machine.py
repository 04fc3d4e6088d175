"""Where collateral comes from, as the deployment file and a client's options say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensconce.appraisal.origin import BundleOrigin, ServerOrigin
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.cluster.deployment import PlatformEntry
from ensconce.cluster.machine import collateral_cache, deployment_collateral
from ensconce.errors import InputError
from ensconce.state.folder import FolderStore

POLICY = Policy(
    roots=("intel",),
    tcb_statuses=(TcbStatus.UP_TO_DATE,),
    identities=(Identity(name="code", mr_enclave=bytes(32), receives=()),),
)


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        (None, ServerOrigin("http://127.0.0.1:8081", ("intel",))),
        ({"url": "https://pccs.test:8081"}, ServerOrigin("https://pccs.test:8081", ("intel",))),
        (
            {"url": "https://pccs.test", "ca_file": "pccs.pem"},
            ServerOrigin("https://pccs.test", ("intel",), Path("/owner/pccs.pem")),
        ),
        ({"bundle": "bundle.json"}, BundleOrigin(Path("/owner/bundle.json"))),
        ({"bundle": "/media/usb/bundle.json"}, BundleOrigin(Path("/media/usb/bundle.json"))),
    ],
)
def test_the_deployment_file_says_where(tmp_path: Path, entry: dict[str, Any] | None, origin: object) -> None:
    platform = PlatformEntry.model_validate({"kind": "simulated", "pccs": "127.0.0.1:8081", "collateral": entry})
    cache = deployment_collateral(POLICY, platform, Path("/owner"), FolderStore(tmp_path))
    assert cache._origin == origin


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
    assert collateral_cache(POLICY, "bundle.json")._origin == BundleOrigin(Path("bundle.json"))
    assert (tmp_path / "cache" / "ensconce" / "collateral" / "intel").is_dir()
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError) as caught:
        collateral_cache(POLICY, "https://pccs.test")
    assert caught.value.check == "folder.cache"
