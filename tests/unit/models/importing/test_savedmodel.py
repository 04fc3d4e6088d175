"""SavedModels of every style, and what else needs TensorFlow, ONNX Runtime or NNCF: skipped where these are absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.models.importing.child import carry_out
from ensconce.models.importing.order import Order, kind_of
from ensconce.models.importing.record import ImportRecord
from ensconce.serving.engines.openvino import OpenVinoServable
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


@pytest.fixture
def carry(tmp_path: Path) -> Carry:
    count = iter(range(99))

    def run(source: Path, **options: Any) -> tuple[ImportRecord, Path]:
        folder = tmp_path / f"import-{next(count)}"
        (folder / "version").mkdir(parents=True)
        (folder / "work").mkdir()
        wanted: dict[str, Any] = {
            "source": str(source),
            "kind": kind_of(source),
            "engine": "openvino",
            "precision": "f32",
            "samples": None,
            "inputs": (),
            "outputs": (),
            "tolerance": 0.001,
            "target": str(folder / "version"),
            "work": str(folder / "work"),
        }
        record = carry_out(Order(**(wanted | options)), lambda *_: None)
        assert not list((folder / "work").iterdir())
        return record, folder / "version"

    return run


def served(folder: Path) -> OpenVinoServable:
    return OpenVinoServable({path.name: path.read_bytes() for path in folder.iterdir()})


def saved(folder: Path, signatures: Callable[[], dict[str, Any]], **options: Any) -> Path:
    """A SavedModel as TensorFlow 1 writes it: what ``signatures`` builds, as (inputs, outputs, method)."""
    with tf.Graph().as_default(), v1.Session() as session:
        built = signatures()
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])

        def infos(tensors: dict[str, Any]) -> dict[str, Any]:
            return {name: v1.saved_model.utils.build_tensor_info(tensor) for name, tensor in tensors.items()}

        definitions = {
            name: v1.saved_model.build_signature_def(infos(inputs), infos(outputs), f"tensorflow/serving/{method}")
            for name, (inputs, outputs, method) in built.items()
        }
        builder = v1.saved_model.Builder(str(folder))
        tags, begin = options.get("tags", ["serve"]), v1.tables_initializer()
        builder.add_meta_graph_and_variables(session, tags, definitions, main_op=begin, strip_default_attrs=True)
        builder.save()
    return folder


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


def test_signatures_of_tensorflow_1(tmp_path: Path, carry: Carry) -> None:
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


def test_keras(tmp_path: Path, carry: Carry) -> None:
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


def test_a_model_of_keras_that_restores_copies_of_its_variables(carry: Carry) -> None:
    digits = Path(__file__).parents[4] / "examples" / "digits"
    with np.load(digits / "heldout.npz") as held_out:
        images, labels = held_out["images"].astype(np.float32)[..., None], held_out["labels"]
    _, folder = carry(digits / "saved_model")
    answer = served(folder).predict("serving_default", {"images": images})
    assert (answer["classes"] == labels).mean() > 0.98


def test_signatures_of_tensorflow_2(tmp_path: Path, carry: Carry) -> None:
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


def test_signatures_that_say_nothing_of_types_and_shapes(tmp_path: Path, carry: Carry) -> None:
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


def test_the_older_parser(tmp_path: Path, carry: Carry) -> None:
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


def test_samples_for_examples_are_their_features(tmp_path: Path, carry: Carry) -> None:
    np.savez(tmp_path / "s.npz", x=X, bias=np.zeros((20, 1), np.int64))
    record, _ = carry(saved(tmp_path / "m", classifier), samples=str(tmp_path / "s.npz"))
    assert record.agreement is not None
    assert (record.agreement.samples, record.agreement.random) == (20, False)


def parsing(**features: Any) -> Callable[[], dict[str, Any]]:
    def build() -> dict[str, Any]:
        serialized = v1.placeholder(tf.string, [None])
        parsed = v1.parse_example(serialized, features)
        dense = (tf.sparse.to_dense(each) if isinstance(each, tf.SparseTensor) else each for each in parsed.values())
        outputs = {name: tf.identity(each) for name, each in zip(parsed, dense, strict=True)}
        return {"s": ({"inputs": serialized}, outputs, "predict")}

    return build


def strings_in() -> dict[str, Any]:
    text = v1.placeholder(tf.string, [None])
    return {"s": ({"text": text}, {"length": tf.strings.length(text)}, "predict")}


def strings_out() -> dict[str, Any]:
    x = v1.placeholder(tf.float32, [None, 3])
    return {"s": ({"x": x}, {"text": tf.as_string(x), "y": x + 1}, "predict")}


def words_alone() -> dict[str, Any]:
    x = v1.placeholder(tf.float32, [None, 3])
    return {"s": ({"x": x}, {"text": tf.tile([["a", "b"]], [tf.shape(x)[0], 1])}, "predict")}


def one_string() -> dict[str, Any]:
    x = v1.placeholder(tf.float32, [None, 3])
    return {"s": ({"x": x}, {"text": tf.constant("a"), "y": x + 1}, "predict")}


def other_table() -> dict[str, Any]:
    x = v1.placeholder(tf.int64, [None])
    keys = tf.constant([10, 20], tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, tf.constant(["a", "b"])), "?")
    return {"s": ({"x": x}, {"text": table.lookup(x), "y": x + 1}, "predict")}


def no_utf8() -> dict[str, Any]:
    x = v1.placeholder(tf.int32, [None])
    return {"s": ({"x": x}, {"text": tf.gather(tf.constant([b"\xff", b"b"]), x), "y": x + 1}, "predict")}


def counter() -> dict[str, Any]:
    variable = v1.get_variable("v", initializer=0.0, use_resource=False)
    return {"s": ({"by": (by := v1.placeholder(tf.float32, []))}, {"y": v1.assign_add(variable, by)}, "predict")}


def unknown_operation() -> dict[str, Any]:
    x = v1.placeholder(tf.float32, [None, 3])
    return {"s": ({"x": x}, {"y": tf.linalg.pinv(x)}, "predict")}


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (strings_in, "takes strings that are no tf.Example"),
        (strings_out, "output text is of strings that it computes"),
        (words_alone, "nothing but constant strings"),
        (one_string, "not the same row for every example"),
        (other_table, "labels numbered from 0"),
        (no_utf8, "not UTF-8"),
        (unknown_operation, "OpenVINO cannot convert"),
        (counter, "changes its own variables"),
        (parsing(x=tf.io.VarLenFeature(tf.int64)), "sparse features"),
        (parsing(x=tf.io.VarLenFeature(tf.int64), y=tf.io.FixedLenFeature([1], tf.int64)), "sparse features"),
        (parsing(x=tf.io.FixedLenFeature([1], tf.string)), "of type string"),
        (parsing(x=tf.io.FixedLenSequenceFeature([1], tf.int64, allow_missing=True)), "left open"),
    ],
)
def test_what_cannot_be_converted(tmp_path: Path, carry: Carry, build: Any, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        carry(saved(tmp_path / "m", build))
    assert caught.value.check == "import.convert"
    assert "--engine tensorflow" in str(caught.value.remedy)


def test_scalars(tmp_path: Path, carry: Carry) -> None:
    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.float32, [])
        return {"serving_default": ({"x": x}, {"y": x / 2 + 3}, "predict")}

    record, folder = carry(saved(tmp_path / "m", build))
    assert served(folder).predict("", {"x": np.array(4, np.float32)})["y"] == 5
    assert record.agreement is not None
    assert (record.agreement.samples, record.agreement.top1) == (8, None)


def test_what_the_original_cannot_be_asked(tmp_path: Path, carry: Carry) -> None:
    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.int32, [None])
        return {"s": ({"x": x}, {"y": tf.gather(tf.constant([1.0]), x)}, "predict")}

    with pytest.raises(InputError, match="the original cannot compute") as caught:
        carry(saved(tmp_path / "m", build))
    assert caught.value.check == "import.samples"
    np.savez(tmp_path / "s.npz", x=np.zeros(3, np.int32))
    carry(tmp_path / "m", samples=str(tmp_path / "s.npz"))


def test_sources_that_tensorflow_does_not_serve(tmp_path: Path, carry: Carry) -> None:
    def add() -> dict[str, Any]:
        x = v1.placeholder(tf.float32, [None])
        return {"s": ({"x": x}, {"y": x + 1}, "predict")}

    carry(saved(tmp_path / "other", add, tags=["other"]))  # the only graph that there is
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff")
    for name in ("none", "broken"):
        with pytest.raises(InputError) as caught:
            carry(tmp_path / name)
        assert caught.value.check == "import.source"


def test_for_tensorflow_as_it_is(tmp_path: Path, carry: Carry) -> None:
    source = saved(tmp_path / "m", strings_in)
    (source / "assets.extra").mkdir()
    (source / "assets.extra" / "note").write_bytes(b"x")
    record, folder = carry(source, engine="tensorflow")
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert files == {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert record.agreement is None
    (source / "saved_model.pb").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"import\.source"):
        carry(source, engine="tensorflow")


def test_int8(tmp_path: Path, carry: Carry) -> None:
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


def test_int8_of_a_signature_without_samples(tmp_path: Path, carry: Carry) -> None:
    pytest.importorskip("nncf", reason="NNCF, which makes int8 models, is not installed")

    def build() -> dict[str, Any]:
        x, z = v1.placeholder(tf.float32, [None, 4]), v1.placeholder(tf.float32, [None, 3])
        return {"a": ({"x": x}, {"y": x @ W}, "predict"), "b": ({"z": z}, {"y": z + 1}, "predict")}

    np.savez(tmp_path / "s.npz", x=X)
    with pytest.raises(InputError, match="int8 needs samples for signature b"):
        carry(saved(tmp_path / "m", build), precision="int8", samples=str(tmp_path / "s.npz"))


def test_tensorflow_lite(tmp_path: Path, carry: Carry) -> None:
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
    np.testing.assert_allclose(next(iter(answer.values())), softmax(X @ W), atol=1e-6)
    assert record.agreement is not None
    assert "Lite" in record.agreement.original or record.agreement.original == "LiteRT"


def test_onnx_by_its_own_runtime(tiny: Any, carry: Carry) -> None:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
    record, _ = carry(tiny.onnx)
    assert record.agreement is not None
    assert record.agreement.original.startswith("ONNX Runtime")


def test_a_frozen_graph_by_tensorflow(tiny: Any, carry: Carry) -> None:
    record, folder = carry(tiny.frozen, inputs=("input",), outputs=("predict",), samples=str(tiny.samples))
    assert record.agreement is not None
    assert record.agreement.original.startswith("TensorFlow")
    np.testing.assert_allclose(served(folder).predict("", {"input": tiny.x})["predict"], tiny.answers(), atol=1e-6)


def test_graphs_are_shared_only_where_they_are_the_same(tmp_path: Path, carry: Carry) -> None:
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
