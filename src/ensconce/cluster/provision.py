"""Puts the provisioning server together from what the owner's folder holds."""

from __future__ import annotations

from pathlib import Path

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.policy_file import load_policy
from ensconce.cluster.machine import collateral_cache, unix_now
from ensconce.cluster.owner import OwnerFolder
from ensconce.provisioning.server import ProvisioningServer

__all__ = ["open_server"]


def open_server(owner: OwnerFolder, policy_file: Path | None) -> ProvisioningServer:
    """The server of this owner, listening and not yet serving.

    Args:
        owner: the owner's folder.
        policy_file: another policy than the folder's own.

    Raises:
        InputError: a file is missing or wrong, or the port is taken.
    """
    deployment = owner.deployment()
    policy = load_policy(policy_file or owner.policy_file)
    keystore = owner.keystore()
    collateral = collateral_cache(policy, f"http://{deployment.platform.pccs}")
    return ProvisioningServer(
        Address.parse(deployment.provisioning.listen),
        server_name=deployment.provisioning.server_name,
        authority=owner.authority(keystore),
        appraiser=Appraiser(policy, collateral, unix_now),
        keystore=keystore,
        audit=owner.audit_log(keystore),
        domain=deployment.service.domain,
        now=unix_now,
    )
