"""The simulated vendor as a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ensconce.addresses import Address
from ensconce.errors import InputError
from ensconce.platform.simulated.http import serve_http
from ensconce.platform.simulated.pki import SimulatedVendor, default_home
from ensconce.platform.simulated.vendor import VendorService
from ensconce.serving.signals import told_to_end
from ensconce.times import unix_now

__all__ = ["serve_vendor"]


def serve_vendor(address: Address, home: Path | None, tell: Callable[[str], None]) -> bool:
    """Serve until SIGTERM or SIGINT; whether it was the latter.

    Args:
        address: where to listen; port 0 takes a free one.
        home: the vendor's folder, made where it is missing; this machine's own vendor when None.
        tell: is told where it listens, and its root.

    Raises:
        InputError: ``vendor.address``, ``vendor.folder``.
        IntegrityError: the vendor's file is damaged.
    """
    return asyncio.run(_serve(address, home or default_home(), tell))


async def _serve(address: Address, home: Path, tell: Callable[[str], None]) -> bool:
    ended = told_to_end()
    vendor = SimulatedVendor.open(home, unix_now())
    service = VendorService(vendor, unix_now)
    try:
        server = await serve_http(*address, service.get, service.post)
    except OSError as error:
        raise InputError(
            "vendor.address",
            f"cannot listen on {address}: {error.strerror}",
            remedy="choose another port, or end the program that uses this one",
        ) from error
    tell(f"simulated vendor {vendor.root_name} on port {server.sockets[0].getsockname()[1]}")
    is_interrupt = await ended
    server.close()
    return is_interrupt
