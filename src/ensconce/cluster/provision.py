"""Puts the provisioning server together from what the owner's folder holds."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.cache import CollateralCache
from ensconce.appraisal.policy import Policy
from ensconce.appraisal.policy_file import load_policy
from ensconce.appraisal.policy_source import PolicySource
from ensconce.appraisal.pool import VerifierPool
from ensconce.appraisal.user_cache import collateral_cache
from ensconce.audit.log import AuditLog
from ensconce.cluster.deployment import Deployment
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import policy_store
from ensconce.cluster.provisioning_entry import LimitsEntry
from ensconce.cluster.recorded import ReleasingKeystore
from ensconce.cluster.state import open_state
from ensconce.errors import IntegrityError, RefusedError
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.server import ProvisioningServer
from ensconce.times import unix_now

__all__ = ["open_server"]

_DESCRIPTORS = 65536
_OWN_DESCRIPTORS = 256
_STAGES = 4  # of a connection's life, each with its own places


@contextlib.contextmanager
def open_server(owner: OwnerFolder, policy_file: Path | None) -> Iterator[ProvisioningServer]:
    """The server of this owner, listening and not yet serving; it and its processes end with the block.

    Args:
        owner: the owner's folder.
        policy_file: a policy, signed or not, that whoever starts the server chooses for this run, instead of the one
            in force and of those that take its place.

    Raises:
        InputError: a file is missing or wrong, a port is taken, or no policy is in force.
        EnsconceError: the policy in force is not what the log says, as :meth:`PolicyStore.in_force`.
        IntegrityError: ``keystore.rollback``: nor is the keystore.
    """
    deployment = owner.deployment()
    entry = deployment.provisioning
    keystore = owner.keystore()
    audit = owner.audit_log(keystore)
    releasing = ReleasingKeystore(keystore, audit, open_state(owner).log, owner.public_key())
    source = None
    if policy_file is not None:
        policy = load_policy(policy_file)
    else:
        source = PolicySource(policy_store(owner))
        policy = source.current().policy
    collateral = _collateral(owner, deployment)
    cache = collateral(policy)
    with contextlib.ExitStack() as held:
        pool = VerifierPool()
        held.callback(pool.close)
        server = ProvisioningServer(
            Address.parse(entry.listen),
            server_name=entry.server_name,
            authority=owner.authority(keystore),
            appraiser=Appraiser(policy, cache, unix_now),
            keystore=releasing,
            audit=audit,
            domain=deployment.service.domain,
            now=unix_now,
            limits=_within_descriptors((entry.limits or LimitsEntry()).limits()),
            verify=pool.verify,
            status=None if entry.status is None else Address.parse(entry.status),
            renewed=_follow(source, audit, policy, cache, collateral),
        )
        held.callback(server.shutdown)
        _watch_collateral(server)
        yield server


def _collateral(owner: OwnerFolder, deployment: Deployment) -> Callable[[Policy], CollateralCache]:
    """Collateral as the deployment file says, kept in the state that the owner's servers share."""
    store = open_state(owner).store
    source, ca_file = deployment.platform.collateral_from(owner.path)
    return lambda policy: collateral_cache(policy, source, ca_file=ca_file, store=store)


def _watch_collateral(server: ProvisioningServer) -> None:
    """Let the metrics say what the cache notices of whoever answers as PCCS."""

    def cache() -> CollateralCache:
        source = server.appraiser.collateral
        assert isinstance(source, CollateralCache)  # open_server gives no other
        return source

    server.metrics.collateral_refused.set_function(lambda: cache().refused)
    server.metrics.revocations_left_out.set_function(lambda: cache().revocations.left_out)


def _follow(
    source: PolicySource | None,
    audit: AuditLog,
    policy: Policy,
    kept: CollateralCache,
    collateral: Callable[[Policy], CollateralCache],
) -> Callable[[], Appraiser | None]:
    """What the server asks for its appraiser: a new one for each new policy; a bad policy is recorded, once.

    Collateral that is due is fetched meanwhile, so that it is there when an outage begins.
    """
    roots = policy.roots

    def renewed() -> Appraiser | None:
        nonlocal roots, kept
        kept.refresh()
        if source is None:
            return None
        try:
            new = source.refresh()
        except (IntegrityError, RefusedError) as error:
            audit.append("policy.refused", **error.fields())
            raise
        if new is None:
            return None
        policy = new.policy
        if policy.roots != roots:
            roots, kept = policy.roots, collateral(policy)
        return Appraiser(policy, kept, unix_now)

    return renewed


def _within_descriptors(limits: Limits) -> Limits:
    """Raise this process's bound on open files as far as the system lets it, and the limits to what fits under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        allowed = _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return dataclasses.replace(
        limits, connections=max(1, min(limits.connections, (allowed - _OWN_DESCRIPTORS) // _STAGES))
    )
