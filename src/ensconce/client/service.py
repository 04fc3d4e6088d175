"""A service as its client knows it: where it is reached, and what whoever answers has to prove."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Required, TypedDict

from cryptography import x509

from ensconce.addresses import Address, check_domain
from ensconce.appraisal.appraiser import Appraiser, CollateralSource
from ensconce.appraisal.bundle import MAX_BUNDLE_SIZE, CollateralBundle
from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_file import load_policy
from ensconce.appraisal.user_cache import INTEL, collateral_cache
from ensconce.client.attested import Alpn, AttestedSocket, connect_tls
from ensconce.client.published import PublishedList
from ensconce.errors import InputError, UnreachableError
from ensconce.files import read_bounded
from ensconce.ratls.trust import load_authority
from ensconce.times import unix_now

__all__ = ["Service", "ServiceOptions", "collateral_of", "read_authority"]

_MAX_PEM = 1 << 16
_MAX_ADDRESSES = 64


class ServiceOptions(TypedDict, total=False):
    """What :meth:`Service.open` takes by keyword, for functions that hand it on."""

    authority: Required[Path | str | x509.Certificate | None]
    collateral: Path | str | CollateralSource | None
    server_name: str | None
    freshness: bool
    published: PublishedList | None
    timeout: float
    now: Callable[[], int]


@dataclass(frozen=True, kw_only=True)
class Service:
    """Everything that a connection is made and judged by. Safe to share between threads.

    Attributes:
        targets: where it is reached; a name stands for all addresses that it has at the moment.
        server_name: its TLS name.
        appraiser: judges evidence.
        authority: see :func:`ensconce.client.leaf.judge_leaf`.
        freshness: whether every connection also has to bring a quote over a nonce of ours and itself.
        timeout: for connecting, in seconds.
    """

    targets: tuple[Address, ...]
    server_name: str
    appraiser: Appraiser
    authority: x509.Certificate | None
    freshness: bool = False
    timeout: float = 10.0

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("client.target", "the client has no address to connect to", rule="at least one HOST:PORT")

    @classmethod
    def open(
        cls,
        target: str | Sequence[str],
        policy: Path | str | Policy | None,
        *,
        authority: Path | str | x509.Certificate | None,
        collateral: Path | str | CollateralSource | None = None,
        server_name: str | None = None,
        freshness: bool = False,
        published: PublishedList | None = None,
        timeout: float = 10.0,
        now: Callable[[], int] = unix_now,
    ) -> Service:
        """A service from what a program or a command line names.

        Args:
            target: HOST:PORT, or several of them for one service.
            policy: a file, or the policy itself; None where what is published alone decides.
            authority: the file ``ca.pem``, or the certificate itself; ``None`` as in
                :func:`ensconce.client.leaf.judge_leaf`.
            collateral: URL of a PCCS or of Intel's service, a bundle file, or a source of one's own; Intel's service
                when absent. What is fetched is kept in this user's cache.
            server_name: the service's TLS name; the target's host when absent.
            freshness: see the class.
            published: what else has to accept every replica.
            timeout: see the class.
            now: the clock, seconds since 1970.

        Raises:
            InputError: an address, a file or a name is wrong; or no name can be concluded from the targets.
            EnsconceError: without a policy, as :meth:`PublishedList.measurements`.
        """
        targets = tuple(Address.parse(each) for each in ([target] if isinstance(target, str) else target))
        if isinstance(authority, Path | str):
            authority = read_authority(Path(authority))
        name = check_domain(server_name.lower()) if server_name is not None else _name_in(targets)
        found = _policy(policy, published, name)
        source = collateral_of(found, collateral, now)
        return cls(
            targets=targets,
            server_name=name,
            appraiser=Appraiser(
                found,
                source,
                now,
                None if published is None else partial(published.measurements, name),
                by_published_alone=policy is None,
            ),
            authority=authority,
            freshness=freshness,
            timeout=timeout,
        )

    def attest(self, address: Address, alpn: Alpn) -> AttestedSocket:
        """Open a connection and have it prove itself, see :func:`ensconce.client.attested.connect_tls`."""
        return connect_tls(
            address,
            self.server_name,
            self.appraiser,
            authority=self.authority,
            alpn=alpn,
            freshness=self.freshness,
            timeout=self.timeout,
        )

    def addresses(self) -> tuple[Address, ...]:
        """Where the service is reached now: every name looked up, without repetitions.

        Raises:
            UnreachableError: ``connect.name``: not one of the names has an address.
        """
        found: dict[Address, None] = {}
        missing: UnreachableError | None = None
        for target in self.targets:
            try:
                entries = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
            except OSError as error:
                missing = UnreachableError(
                    "connect.name",
                    f"there is no host {target.host}: {error.strerror}",
                    remedy="check the address, or the resolver of this machine",
                )
                continue
            for *_, (host, port, *_) in entries:
                found[Address(str(host), int(port))] = None
        if not found:
            assert missing is not None
            raise missing
        return tuple(found)[:_MAX_ADDRESSES]


def _policy(policy: Path | str | Policy | None, published: PublishedList | None, name: str) -> Policy:
    if policy is None:
        if published is None:
            raise InputError(
                "client.policy", "nothing says whom to believe", remedy="give a policy, or what is published, or both"
            )
        return published.to_policy(name)
    return policy if isinstance(policy, Policy) else load_policy(Path(policy))


def read_authority(path: Path) -> x509.Certificate:
    """The owner's authority, ``ca.pem``.

    Raises:
        InputError: it is missing, or not one certificate.
    """
    return load_authority(read_bounded(path, _MAX_PEM))


def collateral_of(
    policy: Policy, collateral: Path | str | CollateralSource | None, now: Callable[[], int]
) -> CollateralSource:
    """Where collateral comes from, for quotes that a policy is to judge.

    Args:
        policy: decides whether Intel has any.
        collateral: see :meth:`Service.open`.
        now: the clock, seconds since 1970.

    Raises:
        InputError: ``client.collateral``: there is none anywhere; or a bundle cannot be read.
    """
    if collateral is None:
        if "intel" not in policy.roots:
            raise InputError(
                "client.collateral",
                "Intel has no collateral for the roots of this policy",
                found=", ".join(policy.roots),
                remedy="say where it comes from: the URL of a PCCS, or a bundle",
            )
        collateral = INTEL
    if not isinstance(collateral, Path | str):
        return collateral
    name = str(collateral)
    if "://" not in name:
        # Read here already: with collateral of an earlier time at hand, a mistyped path would go unnoticed.
        CollateralBundle.from_json(read_bounded(Path(name), MAX_BUNDLE_SIZE))
    return collateral_cache(policy, name, now=now)


def _name_in(targets: tuple[Address, ...]) -> str:
    hosts = {target.host for target in targets}
    host = hosts.pop() if len(hosts) == 1 else ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host:
            return check_domain(host)
    raise InputError(
        "client.server_name",
        "the service's TLS name does not follow from where it is reached",
        found=", ".join(str(target) for target in targets)[:200] or "nothing",
        rule="the DNS name in the certificates of its replicas",
        remedy="give it (server_name)",
    )
