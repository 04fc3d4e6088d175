"""Who is to be believed, from what a program names."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ensconce.addresses import Address
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.service import Service
from ensconce.errors import InputError, UnreachableError
from ensconce.ratls.authority import CertificateAuthority


def policy(root: str = "intel") -> Policy:
    code = Identity(name="code", mr_enclave=bytes(32), receives=())
    return Policy(roots=(root,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(code,))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_from_files_and_with_a_clock(tmp_path: Path) -> None:
    authority = CertificateAuthority.create("owner", 1_700_000_000)
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nserial: 1\nroots: [intel]\ntcb_statuses: [UpToDate]\n"
        f"identities: [{{name: code, mr_enclave: '{'00' * 32}'}}]\n"
    )
    service = Service.open(
        "Digits.Example.test:8500", tmp_path / "policy.yaml", authority=tmp_path / "ca.pem", now=lambda: 7
    )
    assert service.server_name == "digits.example.test"
    assert service.targets == (Address("digits.example.test", 8500),)
    assert service.authority == authority.certificate
    assert service.appraiser.policy == policy()
    assert service.appraiser.now() == 7
    assert not service.freshness


@pytest.mark.parametrize("target", ["127.0.0.1:1", "[::1]:1", ["a.test:1", "b.test:1"]])
def test_a_name_that_does_not_follow_has_to_be_given(target: str | list[str]) -> None:
    with pytest.raises(InputError) as refused:
        Service.open(target, policy(), authority=None)
    assert refused.value.check == "client.server_name"
    assert Service.open(target, policy(), authority=None, server_name="C.test").server_name == "c.test"


def test_one_name_at_several_ports() -> None:
    assert Service.open(["a.test:1", "a.test:2"], policy(), authority=None).server_name == "a.test"


def test_no_address() -> None:
    with pytest.raises(InputError) as refused:
        Service.open([], policy(), authority=None, server_name="a.test")
    assert refused.value.check == "client.target"


def test_collateral_of_a_simulated_root_has_to_be_named() -> None:
    simulated = policy("simulated:" + "00" * 32)
    with pytest.raises(InputError) as refused:
        Service.open("a.test:1", simulated, authority=None)
    assert refused.value.check == "client.collateral"
    assert Service.open("a.test:1", simulated, authority=None, collateral="http://127.0.0.1:1")


def test_a_bundle_that_is_not_there() -> None:
    with pytest.raises(InputError):
        Service.open("a.test:1", policy(), authority=None, collateral="absent.json")


def test_addresses_are_looked_up_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    zone = {"a.test": ["192.0.2.1", "192.0.2.2"], "b.test": ["192.0.2.2"]}

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in zone:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in zone[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    service = Service.open(["a.test:1", "b.test:1", "c.test:1"], policy(), authority=None, server_name="s.test")
    assert service.addresses() == (Address("192.0.2.1", 1), Address("192.0.2.2", 1))
    zone["a.test"] = ["192.0.2.3"]
    assert service.addresses() == (Address("192.0.2.3", 1), Address("192.0.2.2", 1))
    zone.clear()
    with pytest.raises(UnreachableError) as failed:
        service.addresses()
    assert failed.value.check == "connect.name"
