"""Where a service is reached: ``HOST:PORT``."""

from __future__ import annotations

from typing import NamedTuple, Self

from ensconce.errors import InputError

__all__ = ["Target"]


class Target(NamedTuple):
    """A host (name or IP literal, IPv6 without brackets) and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``HOST:PORT`` or ``[IPV6]:PORT``.

        Raises:
            InputError: check ``target.format``.
        """
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        bracketed = host != bare and host == f"[{bare}]"
        if (
            not colon
            or not bare
            or (":" in bare) != bracketed
            or not (port.isascii() and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535)
        ):
            raise InputError(
                "target.format",
                "this is no address of a service",
                found=repr(text[:100]),
                rule="HOST:PORT or [IPV6]:PORT, with a port from 1 to 65535",
                remedy="for example 127.0.0.1:8500",
            )
        return cls(bare, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
