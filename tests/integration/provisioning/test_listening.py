"""Where the provisioning server listens, and how it stops."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from ensconce.addresses import Address
from ensconce.audit.log import AuditLog
from ensconce.errors import InputError, UnreachableError
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.server import ProvisioningServer


def listening_at(address: Address, owner: Any) -> ProvisioningServer:
    """Another server of the same owner."""
    return ProvisioningServer(
        address,
        server_name="a.test",
        authority=owner.authority,
        appraiser=owner.server.appraiser,
        keystore=owner.keystore,
        audit=AuditLog.open(owner.audit_folder, owner.signing_key, lambda: int(time.time())),
        domain="b.test",
        now=lambda: int(time.time()),
    )


def test_a_taken_port_is_an_input_error(owner: Any, owners: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        listening_at(Address("127.0.0.1", owner.server.port), owner)
    assert caught.value.check == "provisioning.address"
    assert str(owner.server.port) in str(caught.value)


def test_an_address_of_another_machine_is_an_input_error(owner: Any) -> None:
    with pytest.raises(InputError):
        listening_at(Address("192.0.2.1", 0), owner)


def test_server_and_service_must_not_share_a_name(owners: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        owners(domain="Same.test", server_name="same.test")
    assert caught.value.check == "provisioning.server_name"


def test_shutdown_cuts_whoever_will_not_leave(owners: Callable[..., Any], raw: Any) -> None:
    owner = owners(limits=Limits(exchange_time=3600.0, closing_time=0.5))
    client, port = raw(owner=owner), owner.server.port
    owner.server.shutdown()
    owner.server.shutdown()
    with pytest.raises(UnreachableError):
        client.answer()
    with pytest.raises(OSError):
        socket.create_connection(Address("127.0.0.1", port), 1)
