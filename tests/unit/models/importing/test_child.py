"""What is converted, by the functions that the converting process calls; OpenVINO alone is needed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError, RefusedError
from ensconce.models.importing import child
from ensconce.models.importing.child import carry_out
from ensconce.models.importing.order import Order, kind_of
from ensconce.models.importing.record import ImportRecord
from ensconce.serving.engines.openvino import OpenVinoServable

Carry = Callable[..., tuple[ImportRecord, Path]]


@pytest.fixture
def carry(tmp_path: Path) -> Carry:
    """Converts a source with other options than the default ones, in this process."""

    def run(source: Path, stages: list[Any] | None = None, **options: Any) -> tuple[ImportRecord, Path]:
        target, work = tmp_path / "target", tmp_path / "work"
        target.mkdir()
        work.mkdir()
        samples = options.pop("samples", None)
        wanted: dict[str, Any] = {
            "source": str(source),
            "kind": kind_of(source),
            "engine": "openvino",
            "precision": "f32",
            "samples": None if samples is None else str(samples),
            "inputs": (),
            "outputs": (),
            "tolerance": 0.001,
            "target": str(target),
            "work": str(work),
        }
        told = (lambda *said: stages.append(said)) if stages is not None else (lambda *_: None)
        return carry_out(Order(**(wanted | options)), told), target

    return run


@pytest.fixture(autouse=True)
def _without_other_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither TensorFlow nor ONNX Runtime is installed, wherever this runs."""
    find = child.util.find_spec
    others = ("tensorflow", "onnxruntime", "ai_edge_litert")
    monkeypatch.setattr(child.util, "find_spec", lambda name, *rest: None if name in others else find(name, *rest))


def served(folder: Path) -> OpenVinoServable:
    return OpenVinoServable({path.name: path.read_bytes() for path in folder.iterdir()})


def test_onnx(tiny: Any, carry: Carry) -> None:
    stages = list[Any]()
    record, folder = carry(tiny.onnx, stages, samples=tiny.samples)
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml", "signatures.json"]
    servable = served(folder)
    (signature,) = servable.signatures.values()
    assert (signature.name, signature.method_name) == ("serving_default", "tensorflow/serving/predict")
    assert {name: spec.shape for name, spec in signature.inputs.items()} == {"x": (-1, 4)}
    assert {name: spec.shape for name, spec in signature.outputs.items()} == {"y": (-1, 3)}
    np.testing.assert_allclose(servable.predict("", {"x": tiny.x})["y"], tiny.answers(), atol=1e-6)
    assert record.agreement is not None
    assert record.agreement.original == "OpenVINO's own reading in f32"
    assert (record.agreement.samples, record.agreement.random, record.agreement.top1) == (20, False, 1.0)
    assert [stage for stage, *_ in stages[:3]] == ["reading", "converting", "writing"]
    assert stages[-1] == ("comparing", 3, 3)


@pytest.mark.parametrize("location", [b"\x12\x01w\x0a\x08location", b"\x0a\x88\0location\x12\x01w"])
def test_an_onnx_file_gets_no_weights_of_what_lies_beside_it(
    tiny: Any, carry: Carry, tmp_path: Path, location: bytes
) -> None:
    tiny.move_weights(location)  # which it does not say in the usual way
    with pytest.raises(InputError) as caught:
        carry(tiny.onnx, samples=tiny.samples)
    assert caught.value.check == "import.convert"
    for folder in ("target", "work"):
        shutil.rmtree(tmp_path / folder)
    whole = tmp_path / "whole"
    whole.mkdir()
    for name in (tiny.onnx.name, "w"):
        (tiny.onnx.parent / name).rename(whole / name)
    record, _ = carry(whole, samples=tiny.samples)
    assert record.agreement is not None


def test_frozen_graph(tiny: Any, carry: Carry) -> None:
    _, folder = carry(tiny.frozen, inputs=("input",), outputs=("predict", "klass:0"))
    servable = served(folder)
    answers = servable.predict("serving_default", {"input": tiny.x})
    np.testing.assert_allclose(answers["predict"], tiny.answers(), atol=1e-6)
    assert np.array_equal(answers["klass"], tiny.answers().argmax(-1))
    assert servable.signatures["serving_default"].outputs["predict"].tensor == "predict:0"


def test_a_frozen_graph_cut_within_or_left_whole(tiny: Any, carry: Carry, tmp_path: Path) -> None:
    _, folder = carry(tiny.frozen)
    assert set(served(folder).signatures["serving_default"].outputs) == {"klass"}
    folder.rename(tmp_path / "whole")
    (tmp_path / "work").rmdir()
    _, folder = carry(tiny.frozen, outputs=("logits",))
    answers = served(folder).predict("", {"input": tiny.x})
    np.testing.assert_allclose(answers["logits"], tiny.x @ tiny.weights, atol=1e-5)


def test_what_openvino_reads_but_cannot_compile(tiny: Any, carry: Carry, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", logits=tiny.x @ tiny.weights)
    with pytest.raises(InputError) as caught:  # nothing says of which rank the logits are
        carry(tiny.frozen, inputs=("logits",), outputs=("predict",), samples=tmp_path / "s.npz")
    assert (caught.value.check, caught.value.found) == ("import.convert", "'Cannot get length of dynamic dimension'")


def test_bf16_is_compared_in_bf16(tiny: Any, carry: Carry) -> None:
    record, folder = carry(tiny.onnx, samples=tiny.samples, precision="bf16", tolerance=0.05)
    assert json.loads((folder / "signatures.json").read_text())["precision"] == "bf16"
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(folder / "model.xml"), "CPU", settings)
    answers = compiled(tiny.x)[0]
    assert record.agreement is not None
    apart = np.abs(answers.astype(np.float64) - tiny.answers()).max()
    assert record.agreement.max_abs == pytest.approx(apart, abs=1e-6)
    assert record.agreement.max_rel == pytest.approx(apart / tiny.answers().max(), abs=1e-6)


def test_too_far_away(tiny: Any, carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    write = child.write_parts

    def spoil(parts: Any, graphs: Any, precision: str, folder: Path, openvino: Any) -> None:
        write(parts, graphs, precision, folder, openvino)
        weights = np.frombuffer((folder / "model.bin").read_bytes(), np.float32)
        (folder / "model.bin").write_bytes((weights * np.float32(1.1)).tobytes())

    monkeypatch.setattr(child, "write_parts", spoil)
    with pytest.raises(RefusedError) as caught:
        carry(tiny.onnx, samples=tiny.samples)
    assert caught.value.check == "import.tolerance"
    logits = tiny.x @ tiny.weights
    powers = np.exp(logits * 1.1)
    apart = np.abs(powers / powers.sum(-1, keepdims=True) - tiny.answers()).max()
    assert f"absolute {apart:.3g}," in str(caught.value.found)


@pytest.mark.parametrize(
    ("options", "check", "text"),
    [
        ({"outputs": ("nix",)}, "import.convert", "nix"),
        ({"inputs": ("nix:1",)}, "import.convert", "nix:1"),
        ({"inputs": ("logits",), "outputs": ("logits",)}, "import.convert", "input:0"),
    ],
)
def test_ends_that_a_graph_does_not_have(tiny: Any, carry: Carry, options: Any, check: str, text: str) -> None:
    with pytest.raises(InputError) as caught:
        carry(tiny.frozen, **options)
    assert caught.value.check == check
    assert text in str(caught.value.found)


@pytest.mark.parametrize("name", ["m.onnx", "m.pb"])
def test_what_openvino_cannot_read(tmp_path: Path, carry: Carry, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x0a\xff\xff")
    with pytest.raises(InputError) as caught:
        carry(tmp_path / name)
    assert caught.value.check == "import.convert"


def test_samples_of_another_model(tiny: Any, carry: Carry, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", z=tiny.x)
    with pytest.raises(InputError) as caught:
        carry(tiny.onnx, samples=tmp_path / "s.npz")
    assert (caught.value.check, caught.value.found) == ("import.samples", "z")


def test_programs_that_are_missing(tiny: Any, carry: Carry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sm").mkdir()
    (tmp_path / "sm" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        carry(tmp_path / "sm")
    assert caught.value.check == "import.tensorflow"
    assert caught.value.remedy is not None
    assert "import-a-model.md" in caught.value.remedy
    (tmp_path / "target").rmdir()
    (tmp_path / "work").rmdir()
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError) as caught:
        carry(tiny.onnx, precision="int8", samples=tiny.samples)
    assert caught.value.check == "import.nncf"


def test_telemetry_is_refused(tiny: Any, carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    find = child.util.find_spec
    monkeypatch.setattr(
        child.util, "find_spec", lambda name, *rest: object() if "telemetry" in name else find(name, *rest)
    )
    with pytest.raises(InputError) as caught:
        carry(tiny.onnx)
    assert caught.value.check == "engine.telemetry"


def test_without_openvino_nothing_is_converted(tiny: Any, carry: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError) as caught:
        carry(tiny.onnx)
    assert caught.value.check == "engine.openvino"
