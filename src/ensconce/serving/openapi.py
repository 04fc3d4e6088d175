"""The REST API as an OpenAPI 3.1 document, with the schemas of the models that are loaded.

Nothing of it is more than clients learn from status and metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.tfserving.signatures import DEFAULT_SIGNATURE, Signature, TensorSpec

__all__ = ["OPENAPI_PATH", "describe", "document"]

OPENAPI_PATH: Final = "/openapi.json"
"""Outside ``/v1/``: the original answers 404 here."""

_CHOICES: Final = {"": (), "/versions/{version}": ("version",), "/labels/{label}": ("label",)}
_SCHEMAS: Final[Mapping[str, Any]] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "string"}},
    },
    "Bytes": {
        "type": "object",
        "description": "Bytes in base64.",
        "required": ["b64"],
        "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
        "additionalProperties": False,
    },
    "Predict": {
        "description": "A row for each example, or each input as a whole.",
        "oneOf": [{"$ref": "#/components/schemas/Rows"}, {"$ref": "#/components/schemas/Columns"}],
    },
    "Rows": {
        "type": "object",
        "required": ["instances"],
        "properties": {"signature_name": {"type": "string"}, "instances": {"type": "array", "minItems": 1}},
    },
    "Columns": {
        "type": "object",
        "required": ["inputs"],
        "properties": {"signature_name": {"type": "string"}, "inputs": {}},
    },
    "Predictions": {
        "oneOf": [
            {"type": "object", "required": ["predictions"], "properties": {"predictions": {"type": "array"}}},
            {"type": "object", "required": ["outputs"], "properties": {"outputs": {}}},
        ]
    },
    "Examples": {
        "type": "object",
        "required": ["examples"],
        "properties": {
            "signature_name": {"type": "string"},
            "context": {"type": "object"},
            "examples": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
    },
    "Results": {
        "type": "object",
        "required": ["results"],
        "properties": {"results": {"type": "array"}},
    },
    "Status": {
        "type": "object",
        "properties": {
            "model_version_status": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "version": {"type": "string"},
                        "state": {"enum": ["UNKNOWN", "START", "LOADING", "AVAILABLE", "UNLOADING", "END"]},
                        "status": {
                            "type": "object",
                            "properties": {"error_code": {"type": "string"}, "error_message": {"type": "string"}},
                        },
                    },
                },
            }
        },
    },
    "Metadata": {
        "type": "object",
        "properties": {"model_spec": {"type": "object"}, "metadata": {"type": "object"}},
    },
}
_PARAMETERS: Final[Mapping[str, Any]] = {
    "model": {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/:]+$"}},
    "version": {"name": "version", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}},
    "label": {"name": "label", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/:]+$"}},
}
# Elements as JSON carries them; others are not served over REST.
_ELEMENTS: Final[Mapping[str, Any]] = {
    **{f"DT_{name}": {"type": "number"} for name in ("FLOAT", "DOUBLE")},
    **{f"DT_{name}": {"type": "integer"} for name in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT32", "UINT64")},
    "DT_BOOL": {"type": "boolean"},
    "DT_STRING": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Bytes"}]},
}


def describe(manager: ModelManager) -> bytes:
    """The document for the models that answer now, as JSON."""
    latest: dict[str, LoadedServable] = {}
    for name, version in manager.models():
        latest[name] = manager.resolve(name, version)
    return _written(tuple(latest.values()))


@lru_cache(maxsize=1)
def _written(models: tuple[LoadedServable, ...]) -> bytes:
    return json.dumps(document({each.name: each.servable.signatures for each in models})).encode()


def document(models: Mapping[str, Mapping[str, Signature]]) -> dict[str, Any]:
    """The document for these models and their signatures."""
    paths: dict[str, Any] = {}
    schemas = dict(_SCHEMAS)
    for path, choice in _CHOICES.items():
        base, given = f"/v1/models/{{model}}{path}", ("model", *choice)
        which = "".join(f"By{name.capitalize()}" for name in choice)
        paths[base] = _get(f"status{which}", "The states of a model's versions", "Status", given)
        paths[f"{base}/metadata"] = _get(f"metadata{which}", "What a model takes and gives", "Metadata", given)
        for method, asked, answered in (
            ("predict", "Predict", "Predictions"),
            ("classify", "Examples", "Results"),
            ("regress", "Examples", "Results"),
        ):
            paths[f"{base}:{method}"] = _post(f"{method}{which}", method, asked, answered, given)
    for number, (name, signatures) in enumerate(sorted(models.items())):
        default = signatures.get(DEFAULT_SIGNATURE)
        if default is not None and all(spec.dtype.name in _ELEMENTS for spec in default.inputs.values()):
            schemas[f"Model{number}"] = _request(name, default)
            paths[f"/v1/models/{quote(name, safe='')}:predict"] = _post(
                f"predictModel{number}", "predict", f"Model{number}", "Predictions", ()
            )
    return {
        "openapi": "3.1.0",
        "info": {"title": "TensorFlow Serving's REST API", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas, "parameters": dict(_PARAMETERS)},
    }


def _get(name: str, summary: str, schema: str, given: tuple[str, ...]) -> dict[str, Any]:
    return {"get": _operation(name, summary, schema, given)}


def _post(name: str, method: str, asked: str, answered: str, given: tuple[str, ...]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": _reference(asked)}}}
    return {"post": {**_operation(name, f"{method.capitalize()} with a model", answered, given), "requestBody": body}}


def _operation(name: str, summary: str, schema: str, given: tuple[str, ...]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _response("The answer", schema), "default": _response("A refusal", "Error")},
    }
    if given:
        described["parameters"] = [{"$ref": f"#/components/parameters/{each}"} for each in given]
    return described


def _response(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _reference(schema)}}}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _request(name: str, signature: Signature) -> dict[str, Any]:
    """What the default signature of a model takes."""
    inputs = signature.inputs
    wholes = {each: _tensor(spec, spec.shape) for each, spec in inputs.items()}
    rows = {each: _tensor(spec, spec.shape[1:] if spec.shape else None) for each, spec in inputs.items()}
    named: dict[str, Any] = {"type": "object", "required": list(inputs), "properties": wholes}
    row: dict[str, Any] = {"type": "object", "required": list(inputs), "properties": rows}
    if len(inputs) == 1:
        [only] = inputs
        named, row = {"anyOf": [named, wholes[only]]}, {"anyOf": [row, rows[only]]}
    signature_name = {"type": "string", "default": signature.name}
    return {
        "description": f"What the default signature of {name} takes.",
        "oneOf": [
            {
                "type": "object",
                "required": ["instances"],
                "properties": {
                    "signature_name": signature_name,
                    "instances": {"type": "array", "minItems": 1, "items": row},
                },
            },
            {
                "type": "object",
                "required": ["inputs"],
                "properties": {"signature_name": signature_name, "inputs": named},
            },
        ],
    }


def _tensor(spec: TensorSpec, shape: tuple[int, ...] | None) -> dict[str, Any]:
    schema: dict[str, Any] = dict(_ELEMENTS[spec.dtype.name])
    if shape is None:
        return {}
    for size in reversed(shape):
        schema = {"type": "array", "items": schema}
        if size >= 0:
            schema |= {"minItems": size, "maxItems": size}
    return schema
