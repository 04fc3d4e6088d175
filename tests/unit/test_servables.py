from __future__ import annotations

import pytest

from ensconce.appraisal.policy import Identity
from ensconce.enclave.config import ReplicaConfig
from ensconce.errors import InputError
from ensconce.models.layout import check_name
from ensconce.provisioning.messages import ModelVersion
from ensconce.servables import is_model_name, key_id, receivable


@pytest.mark.parametrize("name", ["digits", "a", "resnet50-v15_fp32", "0", "n" * 63])
def test_a_name_that_one_accepts_all_accept(name: str) -> None:
    assert is_model_name(name)
    check_name(name)
    assert ModelVersion(name=name, version=1).key_id == key_id(name, 1) == f"{receivable(name)}/1"
    assert Identity(name="x", mr_enclave=bytes(32), receives=(receivable(name),)).may_receive(key_id(name, 1))


@pytest.mark.parametrize("name", ["", "A", "a.b", "a/b", "-a", "_a", "..", "n" * 64, "a\n", "é"])
def test_a_name_that_one_refuses_all_refuse(name: str) -> None:
    assert not is_model_name(name)
    with pytest.raises(InputError):
        check_name(name)
    with pytest.raises(ValueError, match="name"):
        ModelVersion(name=name, version=1)
    with pytest.raises(InputError):
        Identity(name="x", mr_enclave=bytes(32), receives=(receivable(name),))
    config = f'{{"domain": "a.test", "models": ["{name}"], "provisioning": {{}}}}'.encode()
    with pytest.raises(InputError):
        ReplicaConfig.parse(config, "server.json")
