"""The deployment file: strict YAML, and the same deployment after it was written and read again."""

from __future__ import annotations

import yaml

from ensconce.appraisal import strict_yaml
from ensconce.cluster.deployment import Deployment
from ensconce.errors import InputError
from fuzz import world
from fuzz.target import Refused, Target, attempt, holds
from fuzz.targets.strict_yaml import MUTATE, WORDS

__all__ = ["TARGET", "check"]


def check(data: bytes) -> bool:
    """Read a deployment file."""
    deployment = attempt(lambda: strict_yaml.parse(data, "ensconce.yaml").validate(Deployment), InputError)
    if isinstance(deployment, Refused):
        return False
    written = deployment.dump().encode()
    holds(strict_yaml.parse(written, "ensconce.yaml").validate(Deployment) == deployment, "a round trip changes it")
    return True


def seeds() -> dict[str, bytes]:
    """A sound deployment, and one with a field misspelt."""
    fields = {
        "version": 1,
        "service": {"domain": world.DOMAIN, "grpc": "127.0.0.1:8500", "rest": "127.0.0.1:8501"},
        "replicas": 2,
        "platform": {"kind": "simulated", "pccs": "127.0.0.1:8081"},
        "provisioning": {"listen": "127.0.0.1:4433", "servers": ["127.0.0.1:4433"], "server_name": "owner.test"},
        "models": [{"name": "digits"}],
    }
    sound = yaml.safe_dump(fields, sort_keys=False)
    return {"good": sound.encode(), "misspelt": sound.replace("replicas", "replica").encode()}


TARGET = Target(
    "deployment", check, seeds, MUTATE, max_size=8192, words=(*WORDS, b"models:", b"provisioning:", b"state:")
)
