from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.serving.engines import LoadError
from ensconce.serving.engines.saved_model import SessionOptions, import_tensorflow
from ensconce.serving.engines.tensorflow import TensorFlowServable
from ensconce.tfserving.dtypes import BFLOAT16, DTYPES
from ensconce.tfserving.refusal import Code, RequestError

PREDICT = "tensorflow/serving/predict"
Save = Callable[..., Path]


def floats(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


@pytest.fixture
def half_plus_two(tf: Any, save_graph: Save) -> Path:
    """y = x / 2 + 2 with variables, an asset, a table, and tf.Example as input, as TensorFlow 1 saved such models."""
    v1 = tf.compat.v1

    def build() -> Any:
        x = v1.placeholder(tf.float32, [None, 1], "x")
        half, two = v1.Variable(0.5, name="half"), v1.Variable(2.0, name="two")
        y = tf.add(half * x, two, name="y")
        examples = v1.placeholder(tf.string, None, "tf_example")
        parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([1], tf.float32)})
        of_examples = half * parsed["x"] + two
        return {
            "serving_default": ({"x": x}, {"y": y, "same": x}, PREDICT),
            "regress_x_to_y": ({"inputs": examples}, {"outputs": of_examples}, "tensorflow/serving/regress"),
        }

    return save_graph(build)


def test_a_model_of_tensorflow_1(half_plus_two: Path) -> None:
    servable = TensorFlowServable(half_plus_two)
    outputs = servable.predict("", {"x": floats([1], [3])})
    np.testing.assert_array_equal(outputs["y"], floats([2.5], [3.5]))
    np.testing.assert_array_equal(outputs["same"], floats([1], [3]))


def test_shapes_need_not_be_the_signatures(half_plus_two: Path) -> None:
    servable = TensorFlowServable(half_plus_two)
    np.testing.assert_array_equal(servable.predict("", {"x": floats(1, 2, 5)}, ["y"])["y"], floats(2.5, 3, 4.5))
    scalar = servable.predict("", {"x": np.array(3, np.float32)}, ["y"])["y"]
    assert (scalar.shape, scalar.dtype, float(scalar)) == ((), np.float32, 3.5)


def test_examples_are_parsed_in_the_graph(tf: Any, half_plus_two: Path) -> None:
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=[4]))
    example = tf.train.Example(features=tf.train.Features(feature={"x": feature})).SerializeToString()
    servable = TensorFlowServable(half_plus_two)
    outputs = servable.predict("regress_x_to_y", {"inputs": np.array([example, example], object)})
    np.testing.assert_array_equal(outputs["outputs"], floats([4], [4]))
    with pytest.raises(RequestError) as caught:
        servable.predict("regress_x_to_y", {"inputs": np.array([b"no example, secret"], object)})
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.problem == "The model cannot compute with these inputs, of shapes inputs: [1]"
    assert "secret" not in repr(caught.value.__cause__)


def test_metadata_repeats_the_model(tf: Any, half_plus_two: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    [graph] = saved_model_pb2.SavedModel.FromString((half_plus_two / "saved_model.pb").read_bytes()).meta_graphs
    signatures = TensorFlowServable(half_plus_two).signatures
    assert set(signatures) == set(graph.signature_def)
    for name, signature in signatures.items():
        again = type(graph.signature_def[name]).FromString(signature.to_proto().SerializeToString())
        assert again == graph.signature_def[name]


def test_assets_and_tables(tf: Any, save_graph: Save, tmp_path: Path) -> None:
    v1 = tf.compat.v1
    words = tmp_path / "words.txt"
    words.write_text("one\ntwo\n")

    def build() -> Any:
        asset = v1.constant(str(words), name="asset")
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                asset, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
            ),
            num_oov_buckets=1,
        )
        word = v1.placeholder(tf.string, [None], "word")
        return {"serving_default": ({"word": word}, {"number": table.lookup(word)}, PREDICT)}

    folder = save_graph(
        build,
        main_op=lambda: v1.tables_initializer(),
        assets_collection=lambda: v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
    )
    words.unlink()
    outputs = TensorFlowServable(folder).predict("", {"word": np.array([b"two", b"one", b"other"], object)})
    assert outputs["number"].tolist() == [1, 0, 2]


def test_tags_choose_a_graph(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        return {"serving_default": ({"x": x}, {"y": x + 1}, PREDICT)}

    folder = save_graph(build, tags=("serve", "mine"), as_text=True)
    assert (folder / "saved_model.pbtxt").exists()
    servable = TensorFlowServable(folder, SessionOptions(saved_model_tags=("mine", "serve"), intra_op_parallelism=1))
    assert servable.predict("", {"x": floats(1)})["y"].tolist() == [2]
    with pytest.raises(LoadError) as caught:
        TensorFlowServable(folder)
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.problem.startswith("Could not find meta graph def matching supplied tags: { serve }.")
    assert caught.value.found == "serve mine"


def test_a_model_of_tensorflow_2_with_several_signatures(tf: Any, save_module: Save) -> None:
    module = tf.Module()
    module.scale = tf.Variable(3.0)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1], ["no", "yes"]), "?")
    module.table = table
    numbers = tf.TensorSpec([None], tf.float32)
    servable = TensorFlowServable(
        save_module(
            module,
            serving_default=(lambda x: {"y": x * module.scale}, {"x": numbers}),
            names=(lambda n: {"name": table.lookup(n)}, {"n": tf.TensorSpec([None], tf.int32)}),
        )
    )
    assert set(servable.signatures) == {"__saved_model_init_op", "names", "serving_default"}
    assert servable.predict("", {"x": floats(1, 2)})["y"].tolist() == [3, 6]
    assert servable.predict("names", {"n": np.array([1, 0, 7], np.int32)})["name"].tolist() == [b"yes", b"no", b"?"]
    with pytest.raises(RequestError) as caught:
        servable.predict("__saved_model_init_op", {})
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_what_current_keras_saves(tf: Any, tmp_path: Path) -> None:
    """``tf.saved_model.save`` of a Keras 3 model restores copies of its variables, not those that it computes with."""
    import keras

    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.layers[0].bias.assign([1, 2, 3])
    x = floats([1, 2], [3, 4])
    expected = model(x).numpy()
    for name, save in (("saved", lambda path: tf.saved_model.save(model, path)), ("exported", model.export)):
        save(str(tmp_path / name))
        servable = TensorFlowServable(tmp_path / name)
        [feed] = servable.signatures["serving_default"].inputs
        [output] = servable.predict("", {feed: x}).values()
        np.testing.assert_allclose(output, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_every_element_type(tf: Any, save_graph: Save, dtype: Any) -> None:
    def build() -> Any:
        x = tf.compat.v1.placeholder(tf.dtypes.as_dtype(dtype.number), [None, 2], "x")
        return {"serving_default": ({"x": x}, {"y": tf.identity(x)}, PREDICT)}

    servable = TensorFlowServable(save_graph(build))
    if dtype.name == "DT_STRING":
        sent = np.array([[b"a\0", b""], [b"\xff", b"b" * 99]], object)
    elif dtype.numpy.names:
        base = dtype.numpy[dtype.numpy.names[0]]
        sent = np.array([[1, 2], [3, 100]], base).view(dtype.numpy)
    else:
        sent = np.array([[1, 0], [3, 100]]).astype(dtype.numpy)
    got = servable.predict("", {"x": sent})["y"]
    assert got.dtype == dtype.numpy
    np.testing.assert_array_equal(got, sent)
    one = servable.predict("", {"x": sent[0, 0:1].reshape(())})["y"]
    assert one.shape == ()
    assert one.dtype == dtype.numpy
    other = np.zeros((1, 2), np.float64 if dtype.name != "DT_DOUBLE" else np.float32)
    with pytest.raises(RequestError, match=rf"Expects arg\[0\] to be {dtype.label} but "):
        servable.predict("", {"x": other})


def test_bfloat16_is_computed(tf: Any, save_module: Save) -> None:
    servable = TensorFlowServable(
        save_module(serving_default=(lambda x: {"y": x + x}, {"x": tf.TensorSpec([None], tf.bfloat16)}))
    )
    bits = (floats(1, 2.5).view(np.uint32) >> 16).astype("<u2")
    got = servable.predict("", {"x": bits.view(BFLOAT16)})["y"]
    assert (got.view("<u2").astype(np.uint32) << 16).view(np.float32).tolist() == [2, 5]


def test_only_what_is_asked_for_is_computed(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        check = tf.debugging.Assert(False, ["never"])
        with tf.control_dependencies([check]):
            bad = tf.identity(x)
        return {"serving_default": ({"x": x}, {"good": x + 1, "bad": bad, "again": x + 0}, PREDICT)}

    servable = TensorFlowServable(save_graph(build))
    assert list(servable.predict("", {"x": floats(1)}, ["good"])) == ["good"]
    with pytest.raises(RequestError) as caught:
        servable.predict("", {"x": floats(1)}, ["bad", "good"])
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert servable.predict("", {"x": floats(1)}, ["good"])["good"].tolist() == [2]


def test_inputs_may_have_defaults(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        x, k = (tf.compat.v1.placeholder(tf.float32, [None], name) for name in "xk")
        return {"serving_default": ({"x": x, "k": k}, {"y": x * k}, PREDICT)}

    folder = save_graph(build)
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].signature_def["serving_default"].defaults["k"].CopyFrom(tf.make_tensor_proto([10.0]))
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    servable = TensorFlowServable(folder)
    assert servable.predict("", {"x": floats(1, 2)})["y"].tolist() == [10, 20]
    assert servable.predict("", {"x": floats(1, 2), "k": floats(3)})["y"].tolist() == [3, 6]
    with pytest.raises(RequestError) as caught:
        servable.predict("", {"k": floats(3)})
    assert "Inputs expected to be in the request {k}, or default input alias set: k" in caught.value.problem
    assert servable.signatures["serving_default"].to_proto().defaults["k"].float_val == [10]


def test_refusals(half_plus_two: Path) -> None:
    servable = TensorFlowServable(half_plus_two)
    x = floats([1])
    for call, code, text in (
        (("none", {"x": x}), Code.FAILED_PRECONDITION, 'Serving signature key "none" not found.'),
        (("", {}), Code.INVALID_ARGUMENT, "input size does not match signature: 0!=1"),
        (("", {"z": x}), Code.INVALID_ARGUMENT, "Signature input alias: x(feed name: x:0) not found in request"),
        (("", {"x": x}, ["z"]), Code.INVALID_ARGUMENT, "output tensor alias not found in signature: z"),
        (("", {"x": np.zeros((5000, 1), "f4")}), Code.INVALID_ARGUMENT, "at most 4096 are computed at once"),
    ):
        with pytest.raises(RequestError) as caught:
            servable.predict(*call)
        assert caught.value.code is code
        assert text in caught.value.problem


def test_codes_are_tensorflows_own(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, None, "x")
        unset = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="unset")
        value = tf.raw_ops.ReadVariableOp(resource=unset, dtype=tf.float32)
        return {
            "serving_default": ({"x": x}, {"y": tf.matmul(x, x)}, PREDICT),
            "unset": ({"x": x}, {"y": x + value}, PREDICT),
        }

    servable = TensorFlowServable(save_graph(build))
    for name, code in (("serving_default", Code.INVALID_ARGUMENT), ("unset", Code.FAILED_PRECONDITION)):
        with pytest.raises(RequestError) as caught:
            servable.predict(name, {"x": floats([77, 78, 79])})
        assert caught.value.code is code
        assert "7" not in caught.value.problem


def test_signatures_of_tensors_that_the_graph_lacks(tf: Any, half_plus_two: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((half_plus_two / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].signature_def["serving_default"].outputs["y"].name = "nowhere:0"
    (half_plus_two / "saved_model.pb").write_bytes(saved.SerializeToString())
    servable = TensorFlowServable(half_plus_two)
    with pytest.raises(RequestError, match="names tensors that the model cannot compute"):
        servable.predict("", {"x": floats([1])})
    assert servable.predict("", {"x": floats([1])}, ["same"])["same"].tolist() == [[1]]


def test_many_threads_and_many_filters(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None], "x")
        return {"serving_default": ({"x": x}, {f"y{n}": x + n for n in range(8)}, PREDICT)}

    servable = TensorFlowServable(save_graph(build))

    def one(number: int) -> bool:
        chosen = [f"y{n}" for n in range(8) if number & 1 << n] or ["y0"]
        got = servable.predict("", {"x": floats(number)}, chosen)
        return list(got) == chosen and all(got[f"y{n}"] == number + n for n in range(8) if f"y{n}" in chosen)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(256)))


def test_nothing_is_left_of_a_version_that_nobody_refers_to(half_plus_two: Path) -> None:
    servable = TensorFlowServable(half_plus_two)
    session = weakref.ref(servable._session)
    servable.predict("", {"x": floats([1])})
    del servable
    gc.collect()
    assert session() is None


def test_bfloat16_where_that_loses_little(tf: Any, save_graph: Save) -> None:
    def build() -> Any:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], "x")
        return {"serving_default": ({"x": x}, {"y": tf.matmul(x, tf.eye(4) * 3)}, PREDICT)}

    servable = TensorFlowServable(save_graph(build), SessionOptions(mixed_precision="bfloat16", inter_op_parallelism=1))
    got = servable.predict("", {"x": floats([1, 2, 3, 4])})["y"]
    assert (got.dtype, got.tolist()) == (np.float32, [[3, 6, 9, 12]])


def test_a_file_that_cannot_be_read_is_named(half_plus_two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensconce.serving.engines.saved_model._MAX_BYTES", 10)
    with pytest.raises(InputError, match=r"saved_model\.pb"):
        TensorFlowServable(half_plus_two)


def test_a_broken_folder(tf: Any, tmp_path: Path, half_plus_two: Path) -> None:
    with pytest.raises(LoadError) as caught:
        TensorFlowServable(tmp_path / "none")
    assert caught.value.code is Code.NOT_FOUND
    assert caught.value.problem == (
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {tmp_path / 'none'}. "
        "Check that the directory exists and that you have the right permissions for accessing it."
    )
    index = half_plus_two / "variables" / "variables.data-00000-of-00001"
    content = index.read_bytes()
    index.write_bytes(content[:3])
    with pytest.raises(LoadError) as caught:
        TensorFlowServable(half_plus_two)
    assert caught.value.code in (Code.OUT_OF_RANGE, Code.DATA_LOSS)
    (half_plus_two / "saved_model.pb").write_bytes(b"\xff")
    with pytest.raises(LoadError) as caught:
        TensorFlowServable(half_plus_two)
    assert caught.value.altered(found="").code is caught.value.code is Code.DATA_LOSS


def test_an_unknown_operation(tf: Any, half_plus_two: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((half_plus_two / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].graph_def.node[0].op = "NobodysOp"
    (half_plus_two / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(LoadError, match="NobodysOp") as caught:
        TensorFlowServable(half_plus_two)
    assert caught.value.code is not Code.OK


def test_without_tensorflow_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with pytest.raises(InputError) as caught:
        import_tensorflow()
    assert caught.value.check == "engine.tensorflow"
    assert "ensconce[tensorflow]" in str(caught.value)


def test_a_tensorflow_that_does_not_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such instruction')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(InputError, match="TensorFlow cannot be imported: no such instruction") as caught:
        import_tensorflow()
    assert caught.value.check == "engine.tensorflow"


def test_importing_the_engine_imports_no_tensorflow() -> None:
    code = (
        "import sys, json; import ensconce.serving.engines.tensorflow, ensconce.serving.engines.tflite\n"
        "import ensconce.serving.engines.folder\n"
        "print(json.dumps([name in sys.modules for name in ('tensorflow', 'openvino')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]
