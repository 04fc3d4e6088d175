"""The smallest deployment that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ensconce.cluster.deployment import Deployment


@pytest.fixture(scope="session")
def deployment() -> Callable[..., Deployment]:
    """Makes it, with other fields where given."""

    def make(**more: Any) -> Deployment:
        return Deployment.check(
            {
                "version": 1,
                "service": {"domain": "d.test", "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
                "replicas": 1,
                "platform": {"kind": "simulated", "pccs": "127.0.0.1:8081"},
                "provisioning": {
                    "listen": "127.0.0.1:4433",
                    "servers": ["127.0.0.1:4433"],
                    "server_name": "provisioning.d.test",
                },
                "models": [{"name": "m"}],
                **more,
            }
        )

    return make
