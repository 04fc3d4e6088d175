"""Puts the provisioning server together from what the owner's folder holds."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
from collections.abc import Iterator
from pathlib import Path

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy_file import load_policy
from ensconce.appraisal.pool import VerifierPool
from ensconce.cluster.machine import collateral_cache, unix_now
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.provisioning_entry import LimitsEntry
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.server import ProvisioningServer

__all__ = ["open_server"]

_DESCRIPTORS = 65536
_OWN_DESCRIPTORS = 256


@contextlib.contextmanager
def open_server(owner: OwnerFolder, policy_file: Path | None) -> Iterator[ProvisioningServer]:
    """The server of this owner, listening and not yet serving; it and its processes end with the block.

    Args:
        owner: the owner's folder.
        policy_file: another policy than the folder's own.

    Raises:
        InputError: a file is missing or wrong, or a port is taken.
    """
    deployment = owner.deployment()
    entry = deployment.provisioning
    policy = load_policy(policy_file or owner.policy_file)
    keystore = owner.keystore()
    collateral = collateral_cache(policy, f"http://{deployment.platform.pccs}")
    with contextlib.ExitStack() as held:
        pool = VerifierPool()
        held.callback(pool.close)
        server = ProvisioningServer(
            Address.parse(entry.listen),
            server_name=entry.server_name,
            authority=owner.authority(keystore),
            appraiser=Appraiser(policy, collateral, unix_now),
            keystore=keystore,
            audit=owner.audit_log(keystore),
            domain=deployment.service.domain,
            now=unix_now,
            limits=_within_descriptors((entry.limits or LimitsEntry()).limits()),
            verify=pool.verify,
            status=None if entry.status is None else Address.parse(entry.status),
        )
        held.callback(server.shutdown)
        yield server


def _within_descriptors(limits: Limits) -> Limits:
    """Raise this process's bound on open files as far as the system lets it, and the limits to what fits under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        allowed = _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    # One for each stage.
    return dataclasses.replace(limits, connections=max(1, min(limits.connections, (allowed - _OWN_DESCRIPTORS) // 3)))
