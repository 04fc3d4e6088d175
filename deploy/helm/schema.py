"""Writes the chart's values.schema.json: ``python deploy/helm/schema.py``; a test compares it with the model."""

from __future__ import annotations

import json
from pathlib import Path

from ensconce.cluster.kubernetes.values import Values

TARGET = Path(__file__).parent / "ensconce" / "values.schema.json"


def schema() -> str:
    """The schema, as Helm reads it."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Values.model_json_schema(by_alias=True)}
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(schema())
