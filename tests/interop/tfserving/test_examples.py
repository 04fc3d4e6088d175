"""What is parsed out of tf.Example, and what is refused, is what TensorFlow's parse_example says."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.examples import FeatureSpec, parse_examples
from ensconce.tfserving.messages import Example
from ensconce.tfserving.refusal import RequestError

Run = Callable[..., Any]
Case = tuple[list[bytes], dict[str, FeatureSpec]]

TYPES = {"DT_FLOAT": "float_list", "DT_INT64": "int64_list", "DT_STRING": "bytes_list"}
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (3,), (2, 2), (40,), (0,), (1, 1), (-1,), (-1, 2), (-1, 1, 3))


def _value(dtype: str, rng: random.Random) -> Any:
    match dtype:
        case "DT_FLOAT":
            return float(np.float32(rng.choice([0.0, -0.0, 1.5, 3e38, rng.gauss(0, 1)])))
        case "DT_INT64":
            return rng.choice([0, 1, 127, 128, -1, 2**63 - 1, -(2**63), rng.randrange(10**6)])
    return rng.randbytes(rng.choice([0, 1, 5, 130]))


def _case(rng: random.Random) -> Case:
    features = {}
    for name in rng.sample("abcdé", rng.randint(1, 4)):
        dtype, shape = rng.choice(list(TYPES)), rng.choice(SHAPES)
        count = 1 if shape[:1] == (-1,) else int(np.prod(shape))
        default = tuple(_value(dtype, rng) for _ in range(count)) if rng.random() < 0.5 else None
        features[name] = FeatureSpec("t", dtype_named(dtype), shape, default)
    fault = rng.random() < 0.4
    examples = []
    for _ in range(rng.choice([1, 1, 2, 5, 33])):
        example = Example()
        for name, spec in features.items():
            dtype, count = spec.dtype.name, spec.count
            if spec.variable:
                count *= rng.choice([0, 1, 2, 7])
            if fault and rng.random() < 0.2:
                match rng.randrange(4):
                    case 0:
                        continue
                    case 1:
                        example.features.feature[name].SetInParent()
                        continue
                    case 2:
                        count += 1
                    case 3:
                        dtype = rng.choice(list(TYPES))
                fault = False
            elif (spec.default or spec.variable) and rng.random() < 0.2:
                continue
            held = getattr(example.features.feature[name], TYPES[dtype])
            held.SetInParent()
            held.value.extend(_value(dtype, rng) for _ in range(count))
        if rng.random() < 0.3:
            example.features.feature["other"].int64_list.value.append(1)
        examples.append(example.SerializeToString())
        if rng.random() < 0.05:
            examples[-1] = rng.choice(examples) + examples[-1]
    return examples, features


def _theirs(run: Run, cases: list[Case]) -> list[Any]:
    def listed(spec: FeatureSpec) -> Any:
        given = spec.default
        default = None if given is None else [v.decode("latin-1") if isinstance(v, bytes) else v for v in given]
        return [spec.dtype.name, list(spec.shape), default]

    given = [
        {
            "examples": [base64.b64encode(example).decode() for example in examples],
            "features": {name: listed(spec) for name, spec in features.items()},
        }
        for examples, features in cases
    ]
    answers: list[Any] = run("parsed_examples.py", given=given)
    return answers


def _ours(case: Case) -> Any:
    try:
        arrays = parse_examples(*case)
    except RequestError as error:
        return {"code": int(error.code), "text": error.problem}

    def listed(array: Any) -> list[Any]:
        return [v.decode("latin-1") if isinstance(v, bytes) else v for v in array.ravel().tolist()]

    return {
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "values": {name: listed(array) for name, array in arrays.items()},
    }


def test_examples_are_parsed_and_refused_as_tensorflow_does(run: Run) -> None:
    rng = random.Random(4)
    cases = [_case(rng) for _ in range(500)]
    theirs, ours = _theirs(run, cases), [_ours(case) for case in cases]
    for each in (*theirs, *ours):
        # The original counts the examples before, too, sometimes.
        each["text"] = re.sub(r"Saw \d+ values", "Saw values", each.get("text", ""))
    assert ours == theirs
    assert 50 < sum(each["text"] != "" for each in theirs) < 400
