"""What needs other programs, too: NNCF, TensorFlow Lite, ONNX Runtime, TensorFlow for frozen graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.models.importing.record import ImportRecord

tf = pytest.importorskip("tensorflow", reason="TensorFlow, which writes and reads SavedModels, is not installed")
v1 = tf.compat.v1

W = np.random.default_rng(7).standard_normal((4, 3)).astype(np.float32)
X = np.random.default_rng(8).standard_normal((20, 4)).astype(np.float32)
Carry = Callable[..., tuple[ImportRecord, Path]]


def test_int8(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    pytest.importorskip("nncf", reason="NNCF, which makes int8 models, is not installed")
    weights = np.random.default_rng(1).standard_normal((3, 3, 3, 8)).astype(np.float32)
    dense = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)

    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.float32, [None, 8, 8, 3])
        h = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, tf.constant(weights), 1, "SAME")), [1, 2])
        return {"serving_default": ({"x": x}, {"y": tf.matmul(h, tf.constant(dense))}, "predict")}

    images = np.random.default_rng(3).standard_normal((30, 8, 8, 3)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=images)
    source = saved(tmp_path / "m", build)
    record, folder = carry(source, precision="int8", samples=str(tmp_path / "s.npz"), tolerance=0.2)
    assert 'precision="I8"' in (folder / "model.xml").read_text()
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], str(source))
        expected = session.run("MatMul:0", {"Placeholder:0": images})
    answers = served(folder).predict("", {"x": images})["y"]
    apart = np.abs(answers.astype(np.float64) - expected)
    assert record.agreement is not None
    assert record.agreement.max_abs == pytest.approx(apart.max(), rel=0.05)
    assert record.agreement.max_rel == pytest.approx(apart.max() / np.abs(expected).max(), rel=0.05)
    assert record.agreement.top1 == np.mean(answers.argmax(-1) == expected.argmax(-1))
    assert 0 < record.agreement.max_rel < 0.2


def test_int8_of_a_signature_without_samples(tmp_path: Path, carry: Carry, saved: Any) -> None:
    pytest.importorskip("nncf", reason="NNCF, which makes int8 models, is not installed")

    def build() -> dict[str, Any]:
        x, z = v1.placeholder(tf.float32, [None, 4]), v1.placeholder(tf.float32, [None, 3])
        return {"a": ({"x": x}, {"y": x @ W}, "predict"), "b": ({"z": z}, {"y": z + 1}, "predict")}

    np.savez(tmp_path / "s.npz", x=X)
    with pytest.raises(InputError, match="int8 needs samples for signature b"):
        carry(saved(tmp_path / "m", build), precision="int8", samples=str(tmp_path / "s.npz"))


def test_tensorflow_lite(tmp_path: Path, carry: Carry, served: Any) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 4], name="x")])
    def model(x: Any) -> Any:
        return tf.nn.softmax(x @ W)

    lite = tf.lite.TFLiteConverter.from_concrete_functions([model.get_concrete_function()]).convert()
    (tmp_path / "m.tflite").write_bytes(lite)
    np.save(tmp_path / "s.npy", X)
    record, folder = carry(tmp_path / "m.tflite", samples=str(tmp_path / "s.npy"))
    servable = served(folder)
    (signature,) = servable.signatures.values()
    answer = servable.predict("", {next(iter(signature.inputs)): X})
    np.testing.assert_allclose(next(iter(answer.values())), tf.nn.softmax(X @ W), atol=1e-6)
    assert record.agreement is not None
    assert "Lite" in record.agreement.original or record.agreement.original == "LiteRT"


def test_onnx_by_its_own_runtime(tiny: Any, carry: Carry) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    record, _ = carry(tiny.onnx)
    assert record.agreement is not None
    assert record.agreement.original.startswith("ONNX Runtime")


def test_a_frozen_graph_by_tensorflow(tiny: Any, carry: Carry, served: Any) -> None:
    record, folder = carry(tiny.frozen, inputs=("input",), outputs=("predict",), samples=str(tiny.samples))
    assert record.agreement is not None
    assert record.agreement.original.startswith("TensorFlow")
    np.testing.assert_allclose(served(folder).predict("", {"input": tiny.x})["predict"], tiny.answers(), atol=1e-6)
