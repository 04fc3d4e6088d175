from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from ensconce.serving.answers import read_predict
from ensconce.serving.batching.pace import Pace
from ensconce.serving.batching.plans import Plan, make_plan
from ensconce.serving.grpc.repeats import Repeats, spec_in
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.messages import PredictRequest
from ensconce.tfserving.signatures import Signature, TensorSpec
from ensconce.tfserving.tensor import Array, to_proto

FLOAT = TensorSpec("t", dtype_named("DT_FLOAT"), (-1, 2))


def signature(name: str, **more: Any) -> Signature:
    return Signature(name, "tensorflow/serving/predict", {"x": FLOAT}, {"y": FLOAT, "z": FLOAT}, **more)


class Model:
    def __init__(self, **more: Any) -> None:
        self.signatures = {name: signature(name, **more) for name in ("serving_default", "other")}

    def predict(
        self, signature_name: str, inputs: Mapping[str, Array], output_filter: Sequence[str] = ()
    ) -> dict[str, Array]:
        raise NotImplementedError


class Planner:
    """As much of a scheduler as is asked for here."""

    def __init__(self) -> None:
        self.pace = Pace(True)

    def plan(self, _loaded: LoadedServable, of: Signature, inputs: Mapping[str, Array], outputs: Sequence[str]) -> Plan:
        return make_plan(self.pace, of, inputs, outputs, None, merge=True)


class Known:
    """Requests to a manager's models, and what is known of them."""

    def __init__(self) -> None:
        self.manager, self.planner = ModelManager(), Planner()
        self.repeats = Repeats(self.manager, self.planner)  # type: ignore[arg-type]  # only plans are asked for

    def learn(self, message: Any) -> None:
        data = message.SerializeToString()
        self.repeats.learn(data, spec_in(message), read_predict(self.manager, message, tensor_bytes=1 << 20))

    def find(self, message: Any) -> Any:
        return self.repeats.find(message.SerializeToString())


@pytest.fixture
def known() -> Known:
    made = Known()
    made.manager.add("m", 1, Model())
    return made


def ask(value: float = 1, *, rows: int = 1, name: str = "m", **spec: Any) -> Any:
    message = PredictRequest()
    message.model_spec.name = name
    if "version" in spec:
        message.model_spec.version.value = spec.pop("version")
    for field, given in spec.items():
        setattr(message.model_spec, field, given)
    message.inputs["x"].CopyFrom(to_proto(np.full((rows, 2), value, np.float32)))
    return message


def test_one_like_it_is_read_and_planned_as_it_was(known: Known) -> None:
    assert known.find(ask(1)) is None
    known.learn(ask(1))
    asked, plan = known.find(ask(5))
    assert asked.inputs["x"].tolist() == [[5, 5]]
    assert (asked.loaded.version, asked.signature.name, asked.output_filter) == (1, "serving_default", ())
    assert (plan.signature, plan.outputs, plan.rows, plan.nbytes) == ("serving_default", ("y", "z"), 1, 8)


def test_of_a_size_several_are_known_and_of_others_too(known: Known) -> None:
    filtered = ask()
    filtered.output_filter.append("y")
    asked = [ask(rows=2), ask(signature_name="other"), filtered, ask(version=1)]
    for each in asked:
        known.learn(each)
    assert known.find(asked[0])[1].rows == 2
    assert known.find(asked[1])[0].signature.name == "other"
    assert known.find(asked[2])[1].outputs == ("y",)
    assert known.find(asked[3])[0].loaded.version == 1


def test_what_is_known_is_not_learned_again(known: Known) -> None:
    known.learn(ask(1))
    for value in range(5):
        known.learn(ask(value))
    assert [len(each) for each in known.repeats._by_size.values()] == [1]


def test_the_latest_version_is_another_one_tomorrow(known: Known) -> None:
    known.learn(ask())
    known.manager.add("m", 2, Model())
    assert known.find(ask()) is None
    known.learn(ask())
    assert known.find(ask())[0].loaded.version == 2
    known.manager.remove("m", 2)
    assert known.find(ask()) is None


def test_a_label_that_moves_is_followed(known: Known) -> None:
    known.manager.add("m", 2, Model())
    known.manager.label({"m": {"canary": 1}})
    known.learn(ask(version_label="canary"))
    assert known.find(ask(version_label="canary"))[0].loaded.version == 1
    known.manager.label({"m": {"canary": 2}})
    assert known.find(ask(version_label="canary")) is None
    known.manager.label({})
    assert known.find(ask(version_label="canary")) is None


def test_a_model_that_is_gone_is_not_kept(known: Known) -> None:
    known.learn(ask())
    servable = weakref.ref(known.manager.resolve("m").servable)
    known.manager.remove("m", 1)
    gc.collect()
    assert servable() is None
    assert known.find(ask()) is None
    known.manager.add("m", 1, Model())
    assert known.find(ask()) is None


def test_a_signature_that_is_no_longer_merged_is_planned_anew(known: Known) -> None:
    known.learn(ask())
    for _ in range(3):
        known.planner.pace.tried(False)
    assert known.find(ask()) is None
    known.learn(ask())
    assert known.find(ask())[1].mates is None


def test_inputs_with_defaults_are_read_each_time() -> None:
    known = Known()
    known.manager.add("m", 1, Model(defaults={"x": np.ones((1, 2), np.float32)}))
    message = ask()
    del message.inputs["x"]
    known.learn(message)
    assert known.find(message) is None


def test_how_much_is_known_is_bounded(known: Known) -> None:
    for rows in range(1, 400):
        known.learn(ask(rows=rows))
    assert len(known.repeats._by_size) <= 256
    for label in range(100):
        known.manager.label({"m": {f"{label:03d}": 1}})
        known.learn(ask(version_label=f"{label:03d}"))
    assert max(len(each) for each in known.repeats._by_size.values()) == 4
