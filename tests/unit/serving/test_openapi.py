from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from ensconce.serving.openapi import document
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.signatures import Signature, TensorSpec


def signature(**inputs: tuple[str, tuple[int, ...] | None]) -> dict[str, Signature]:
    specs = {name: TensorSpec(name, dtype_named(dtype), shape) for name, (dtype, shape) in inputs.items()}
    return {"serving_default": Signature("serving_default", "", specs, {})}


MODELS = {
    "digits": signature(images=("DT_FLOAT", (-1, 2, 1))),
    "two words/é": signature(a=("DT_INT64", (-1,)), b=("DT_STRING", None)),
    "scalar": signature(x=("DT_BOOL", ())),
    "half": signature(x=("DT_HALF", (-1,))),
    "other": {},
}


def test_it_is_openapi() -> None:
    for models in ({}, MODELS):
        OpenAPIV31SpecValidator(document(models)).validate()


def test_every_path_of_the_api_is_there() -> None:
    paths = document({})["paths"]
    assert len(paths) == 15
    assert set(paths["/v1/models/{model}/labels/{label}:predict"]) == {"post"}
    assert set(paths["/v1/models/{model}/versions/{version}/metadata"]) == {"get"}


def test_models_are_there_with_what_they_take() -> None:
    paths = document(MODELS)["paths"]
    assert [path for path in paths if "{" not in path] == [
        "/v1/models/digits:predict",
        "/v1/models/scalar:predict",
        "/v1/models/two%20words%2F%C3%A9:predict",
    ]


@pytest.mark.parametrize(
    ("model", "body", "fits"),
    [
        ("digits", {"instances": [[[1], [2.5]]]}, True),
        ("digits", {"instances": [{"images": [[1], [2]]}]}, True),
        ("digits", {"inputs": [[[1], [2]]]}, True),
        ("digits", {"inputs": {"images": [[[1], [2]]]}, "signature_name": "serving_default"}, True),
        ("digits", {"instances": [[[1]]]}, False),
        ("digits", {"instances": []}, False),
        ("digits", {"instances": [[["a"], [2]]]}, False),
        ("digits", {}, False),
        ("two words/é", {"instances": [{"a": 1, "b": {"b64": "AA=="}}]}, True),
        ("two words/é", {"instances": [{"a": 1}]}, False),
        ("two words/é", {"instances": [1]}, False),
        ("scalar", {"inputs": True}, True),
    ],
)
def test_the_schemas_say_what_is_taken(model: str, body: Any, fits: bool) -> None:
    made = document(MODELS)
    number = sorted(MODELS).index(model)
    schema = {"$ref": f"#/components/schemas/Model{number}", "components": made["components"]}
    assert jsonschema.Draft202012Validator(schema).is_valid(body) is fits
