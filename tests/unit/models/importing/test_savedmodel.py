"""SavedModels of every style."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.models.importing.record import ImportRecord
from ensconce.tfserving.messages import Example

tf = pytest.importorskip("tensorflow", reason="TensorFlow, which writes and reads SavedModels, is not installed")
v1 = tf.compat.v1

W = np.random.default_rng(7).standard_normal((4, 3)).astype(np.float32)
X = np.random.default_rng(8).standard_normal((20, 4)).astype(np.float32)
Carry = Callable[..., tuple[ImportRecord, Path]]


def softmax(x: Any) -> Any:
    power = np.exp(x - x.max(-1, keepdims=True))
    return power / power.sum(-1, keepdims=True)


def examples(x: Any, **more: list[int]) -> Any:
    rows = []
    for row in x:
        example = Example()
        example.features.feature["x"].float_list.value.extend(row.tolist())
        for name, values in more.items():
            example.features.feature[name].int64_list.value.extend(values)
        rows.append(example.SerializeToString())
    return np.array(rows, object)


def classifier() -> dict[str, Any]:
    """What TensorFlow 1's estimators and examples export: several signatures over parsed examples, with labels."""
    serialized = v1.placeholder(tf.string, [None], "tf_example")
    parsed = v1.parse_example(
        serialized,
        {
            "x": tf.io.FixedLenFeature([4], tf.float32),
            "bias": tf.io.FixedLenFeature([1], tf.int64, default_value=[2]),
            "unused": tf.io.FixedLenFeature([], tf.string, default_value=b""),
        },
    )
    x = tf.identity(parsed["x"], "x")
    variable = v1.get_variable("w", initializer=W, use_resource=False)
    logits = tf.matmul(x, variable) + tf.cast(parsed["bias"], tf.float32)
    scores = tf.nn.softmax(logits, name="scores")
    top, index = tf.nn.top_k(scores, 2)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.range(3, dtype=tf.int64), tf.constant(["ant", "bee", "cat"])), "UNK"
    )
    numbers = tf.tile(tf.expand_dims(tf.as_string(tf.range(3)), 0), [tf.shape(serialized)[0], 1])
    count = tf.fill([tf.shape(serialized)[0]], 1.0) + logits[:, 0]
    return {
        "top": ({"inputs": serialized}, {"classes": table.lookup(tf.cast(index, tf.int64)), "scores": top}, "classify"),
        "all": ({"inputs": serialized}, {"classes": numbers, "scores": scores}, "classify"),
        "value": ({"inputs": serialized}, {"outputs": count}, "regress"),
        "serving_default": ({"x": x, "bias": parsed["bias"]}, {"y": scores, "x": x}, "predict"),
    }


def test_signatures_of_tensorflow_1(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    record, folder = carry(saved(tmp_path / "m", classifier))
    assert record.kind == "saved-model"
    assert record.agreement is not None
    assert record.agreement.original == f"TensorFlow {tf.__version__}"
    assert {(each.signature, each.output) for each in record.outputs} == {
        *(("top", "classes"), ("top", "scores"), ("all", "classes"), ("all", "scores"), ("value", "outputs")),
        *(("serving_default", "x"), ("serving_default", "y")),
    }
    servable = served(folder)
    logits = X @ W + 2
    best = np.argsort(-logits, axis=1)[:, :2]
    answer = servable.predict("top", {"inputs": examples(X)})
    assert answer["classes"].tolist() == np.array([b"ant", b"bee", b"cat"], object)[best].tolist()
    np.testing.assert_allclose(answer["scores"], -np.sort(-softmax(logits))[:, :2], atol=1e-6)
    answer = servable.predict("all", {"inputs": examples(X, bias=[5])})
    assert answer["classes"].tolist() == [[b"0", b"1", b"2"]] * len(X)
    np.testing.assert_allclose(answer["scores"], softmax(X @ W), atol=1e-6)
    answer = servable.predict("value", {"inputs": examples(X, bias=[5])})
    np.testing.assert_allclose(answer["outputs"], (X @ W)[:, 0] + 6, atol=1e-4)
    answer = servable.predict("", {"x": X, "bias": np.full((20, 1), 2)})
    np.testing.assert_allclose(answer["y"], softmax(logits), atol=1e-6)
    assert np.array_equal(answer["x"], X)
    described = json.loads((folder / "signatures.json").read_text())["signatures"]
    assert {name: each["method_name"] for name, each in described.items()} == {
        "top": "tensorflow/serving/classify",
        "all": "tensorflow/serving/classify",
        "value": "tensorflow/serving/regress",
        "serving_default": "tensorflow/serving/predict",
    }
    features = described["top"]["examples"]["features"]
    assert all(each.pop("tensor") for each in features.values())
    assert features == {
        "x": {"dtype": "DT_FLOAT", "shape": [4], "default": None},
        "bias": {"dtype": "DT_INT64", "shape": [1], "default": [2]},
    }
    assert described["serving_default"]["inputs"]["x"]["tensor"] == "x:0"


def test_keras(tmp_path: Path, carry: Carry, served: Any) -> None:
    layers = tf.keras.layers
    whole = [layers.Conv2D(3, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(5, activation="softmax")]
    model = tf.keras.Sequential([tf.keras.Input((8, 8, 1), name="image"), *whole])
    model.export(str(tmp_path / "m"), verbose=False)
    images = np.random.default_rng(0).standard_normal((12, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "s.npz", image=images)
    record, folder = carry(tmp_path / "m", samples=str(tmp_path / "s.npz"))
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml", "signatures.json"]
    servable = served(folder)
    assert set(servable.signatures) == {"serve", "serving_default"}
    expected = np.asarray(model(images, training=False))
    for name in servable.signatures:
        np.testing.assert_allclose(servable.predict(name, {"image": images})["output_0"], expected, atol=1e-5)
    assert record.agreement is not None
    assert (record.agreement.samples, record.agreement.random) == (12, False)


def test_a_model_of_keras_that_restores_copies_of_its_variables(carry: Carry, served: Any) -> None:
    digits = Path(__file__).parents[4] / "examples" / "digits"
    with np.load(digits / "heldout.npz") as held_out:
        images, labels = held_out["images"].astype(np.float32)[..., None], held_out["labels"]
    _, folder = carry(digits / "saved_model")
    answer = served(folder).predict("serving_default", {"images": images})
    assert (answer["classes"] == labels).mean() > 0.98


def test_signatures_of_tensorflow_2(tmp_path: Path, carry: Carry, served: Any) -> None:
    class Model(tf.Module):
        def __init__(self) -> None:
            self.w = tf.Variable(W)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def classify(self, examples: Any) -> Any:
            x = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([4], tf.float32)})["x"]
            scores = tf.nn.softmax(x @ self.w)
            order = tf.argsort(scores, direction="DESCENDING")
            return {"scores": scores, "classes": tf.gather(tf.constant(["ant", "bee", "cat"]), order)}

        @tf.function(input_signature=[tf.TensorSpec([None, 4]), tf.TensorSpec([None, 2], tf.int32, name="ignored")])
        def predict(self, x: Any, ignored: Any) -> Any:
            return {"y": x @ self.w, "again": x @ self.w}

    model = Model()
    tf.saved_model.save(model, str(tmp_path / "m"), {"classify": model.classify, "serving_default": model.predict})
    _, folder = carry(tmp_path / "m")
    servable = served(folder)
    answer = servable.predict("classify", {"examples": examples(X)})
    order = np.argsort(-(X @ W), axis=1)
    assert answer["classes"].tolist() == np.array([b"ant", b"bee", b"cat"], object)[order].tolist()
    np.testing.assert_allclose(answer["scores"], softmax(X @ W), atol=1e-6)
    answer = servable.predict("", {"x": X, "ignored": np.zeros((20, 2), np.int32)})
    np.testing.assert_allclose(answer["y"], X @ W, atol=1e-5)
    assert np.array_equal(answer["y"], answer["again"])


def test_signatures_that_say_nothing_of_types_and_shapes(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    source = saved(tmp_path / "m", classifier)
    model = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    for signature in model.meta_graphs[0].signature_def.values():
        for info in [*signature.inputs.values(), *signature.outputs.values()]:
            info.ClearField("dtype")
            info.ClearField("tensor_shape")
    (source / "saved_model.pb").write_bytes(model.SerializeToString())
    _, folder = carry(source)
    signatures = served(folder).signatures
    assert signatures["top"].inputs["inputs"].dtype.name == "DT_STRING"
    assert signatures["serving_default"].inputs["x"].shape == (-1, 4)
    assert signatures["serving_default"].outputs["y"].dtype.name == "DT_FLOAT"


def test_the_older_parser(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    def build() -> dict[str, Any]:
        serialized = v1.placeholder(tf.string, [None])
        parsed = tf.raw_ops.ParseExample(
            serialized=serialized,
            names=[],
            sparse_keys=["sparse"],
            dense_keys=["x"],
            dense_defaults=[tf.constant([1.0, 2.0, 3.0, 4.0])],
            sparse_types=[tf.int64],
            dense_shapes=[[4]],
        )
        return {"serving_default": ({"in": serialized}, {"outputs": tf.matmul(parsed.dense_values[0], W)}, "regress")}

    _, folder = carry(saved(tmp_path / "m", build))
    answer = served(folder).predict("", {"in": np.array([Example().SerializeToString(), *examples(X)], object)})
    expected = np.concatenate([[[1, 2, 3, 4]], X]).astype(np.float32) @ W
    np.testing.assert_allclose(answer["outputs"], expected, atol=1e-5)


def test_samples_for_examples_are_their_features(tmp_path: Path, carry: Carry, saved: Any) -> None:
    np.savez(tmp_path / "s.npz", x=X, bias=np.zeros((20, 1), np.int64))
    record, _ = carry(saved(tmp_path / "m", classifier), samples=str(tmp_path / "s.npz"))
    assert record.agreement is not None
    assert (record.agreement.samples, record.agreement.random) == (20, False)


def test_scalars(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.float32, [])
        return {"serving_default": ({"x": x}, {"y": x / 2 + 3}, "predict")}

    record, folder = carry(saved(tmp_path / "m", build))
    assert served(folder).predict("", {"x": np.array(4, np.float32)})["y"] == 5
    assert record.agreement is not None
    assert (record.agreement.samples, record.agreement.top1) == (8, None)


def test_graphs_are_shared_only_where_they_are_the_same(tmp_path: Path, carry: Carry, saved: Any, served: Any) -> None:
    def build() -> dict[str, Any]:
        a, b, c = (v1.placeholder(tf.float32, [None, 4], name) for name in "abc")
        wide = v1.placeholder(tf.float32, [None, None], "wide")
        return {
            "one": ({"x": a}, {"y": a @ W}, "predict"),
            "same": ({"x": b}, {"z": b @ W}, "predict"),
            "other": ({"x": c}, {"y": c @ (W + 1)}, "predict"),
            "open": ({"x": wide}, {"y": wide @ W}, "predict"),
            "forth": ({"p": a, "q": b}, {"y": a - b}, "predict"),
            "back": ({"p": a, "q": b}, {"y": b - a}, "predict"),
            "both": ({"x": a}, {"y": a @ W, "more": tf.nn.relu(a @ W)}, "predict"),
        }

    np.savez(tmp_path / "s.npz", x=X)
    _, folder = carry(saved(tmp_path / "m", build), samples=str(tmp_path / "s.npz"))
    described = json.loads((folder / "signatures.json").read_text())["signatures"]
    graphs = {name: each.get("graph", "model") for name, each in described.items()}
    assert graphs["one"] == graphs["same"]
    assert len({*graphs.values()}) == 6
    assert {path.stem for path in folder.glob("*.xml")} == {*graphs.values()}
    servable, x = served(folder), np.ones((2, 4), np.float32)
    np.testing.assert_allclose(servable.predict("one", {"x": X})["y"], X @ W, atol=1e-5)
    np.testing.assert_allclose(servable.predict("same", {"x": X})["z"], X @ W, atol=1e-5)
    np.testing.assert_allclose(servable.predict("other", {"x": X})["y"], X @ (W + 1), atol=1e-5)
    assert np.array_equal(servable.predict("forth", {"p": 3 * x, "q": x})["y"], 2 * x)
    assert np.array_equal(servable.predict("back", {"p": 3 * x, "q": x})["y"], -2 * x)
