"""The Helm chart makes the objects that ``ensconce kubernetes render`` makes, from the values that it prints."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensconce import __version__
from ensconce.cluster.kubernetes.objects import render
from ensconce.cluster.kubernetes.values import Values

HELM = os.environ.get("ENSCONCE_HELM") or shutil.which("helm")
CHART = Path(__file__).parents[4] / "deploy" / "helm" / "ensconce"
Read = Callable[..., Values]

needs_helm = pytest.mark.skipif(HELM is None, reason="there is no helm; ENSCONCE_HELM names one")


def templated(values: dict[str, Any], folder: Path) -> list[Any]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [
            str(HELM),
            "template",
            "digits",
            str(CHART),
            "--kube-version",
            "1.35.0",
            "--values",
            str(folder / "values.yaml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def by_name(objects: list[Any]) -> dict[tuple[str, str], Any]:
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


CASES: dict[str, dict[str, Any]] = {
    "simulated": {},
    "with its vendor": {"vendor": {"serve": True, "address": "10.96.0.77"}, "createNamespace": False},
    "vendor by name": {"vendor": {"serve": True}, "models": {"url": "http://192.0.2.5:9000/models"}},
    "vendor elsewhere": {"vendor": {"url": "http://192.0.2.9:8081"}, "models": {"claim": "digits-models"}},
    "ingress": {"route": {"kind": "ingress"}, "spare": 2, "serviceAccountAnnotations": {"example.test/role": "reader"}},
    "no route": {"route": {"kind": "none"}, "metricsFrom": [{"namespace": "monitoring", "podLabels": {"a": "b"}}]},
    "shared gateway": {
        "route": {"gateway": {"name": "edge", "namespace": "gateways"}, "apiVersion": "v1alpha3"},
        "egressTo": [{"cidr": "192.0.2.64/26", "port": 3128}, {"podLabels": {}, "port": 4433}],
    },
    "peers": {"ingressFrom": [{"cidr": "10.89.0.0/24"}, {"namespace": "edge"}, {"podLabels": {}}]},
    "scaled": {"autoscaling": {"maxReplicas": 8, "queueMilliseconds": 15}, "probes": {"startSeconds": 61}},
    "bucket": {"models": {"url": "s3://models-of-digits/owner", "image": "registry.example.test/ensconce-s3:1"}},
    "scheduled": {"scheduling": {"nodeSelector": {"zone": "a"}, "tolerations": [{"key": "example.test/sgx"}]}},
}

NAMESERVERS = {"enclave": {"nameservers": ["192.0.2.53", "2001:db8::53"], "hosts": {"a.example.test": "192.0.2.1"}}}
GOOGLES: dict[str, dict[str, Any]] = {
    "fetched": {},
    "claimed": {"models": {"claim": "digits-models"}, "spare": 1},
    "ingress": {"route": {"kind": "ingress"}, "probes": {"drainSeconds": 90}},
    "very many": {"replicas": 2500, "spare": 500},
    "shared gateway": {"route": {"gateway": {"name": "edge", "namespace": "gateways"}}},
}


@needs_helm
@pytest.mark.parametrize("case", CASES)
def test_chart_and_command_agree(values: Read, tmp_path: Path, case: str) -> None:
    _agree(values(**CASES[case]), tmp_path)


@needs_helm
@pytest.mark.parametrize("plugin", ["intel", "azure", "alibaba"])
def test_they_agree_on_sgx_nodes(gramine: Read, tmp_path: Path, plugin: str) -> None:
    _agree(gramine(plugin=plugin, group=117, pccs=[{"cidr": "192.0.2.8/32", "port": 8081}]), tmp_path)


@needs_helm
@pytest.mark.parametrize("case", GOOGLES)
def test_they_agree_on_tensorflow_serving(googles: Read, tmp_path: Path, case: str) -> None:
    _agree(googles(NAMESERVERS, **GOOGLES[case]), tmp_path)


def _agree(values: Values, folder: Path) -> None:
    made = by_name(templated(values.model_dump(by_alias=True, exclude_none=True), folder))
    for each in made.values():
        if each["kind"] == "ConfigMap":
            # What only Helm needs to be told: old replicas have need of the old one.
            assert each["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    wanted = by_name(render(values))
    assert set(made) == set(wanted)
    for name, each in wanted.items():
        assert made[name] == each, name


@needs_helm
def test_unknown_values_are_refused(values: Read, tmp_path: Path) -> None:
    fields = values().model_dump(by_alias=True, exclude_none=True)
    with pytest.raises(AssertionError, match="priviledged"):
        templated({**fields, "priviledged": True}, tmp_path)


def test_the_schema_is_the_values_own() -> None:
    spec = importlib.util.spec_from_file_location("schema", CHART.parent / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.schema(), "run deploy/helm/schema.py"


def test_the_charts_version_is_ours() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
