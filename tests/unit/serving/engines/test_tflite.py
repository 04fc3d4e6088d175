from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from ensconce.serving.engines import LoadError
from ensconce.serving.engines.tflite import TfliteServable
from ensconce.tfserving.dtypes import dtype_named
from ensconce.tfserving.messages import SignatureDef
from ensconce.tfserving.refusal import Code, RequestError

DTYPES = ("DT_FLOAT", "DT_INT32", "DT_UINT8", "DT_INT64", "DT_BOOL", "DT_INT16", "DT_INT8", "DT_STRING")


def floats(*values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def convert(tf: Any, function: Any, **specs: Any) -> bytes:
    named = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in specs.items()}
    concrete = tf.function(function).get_concrete_function(**named)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converted: bytes = converter.convert()
    return converted


@pytest.fixture(scope="module")
def halves(tf: Any) -> bytes:
    return convert(tf, lambda x: {"y": x / 2 + 2}, x=tf.TensorSpec([1, 1], tf.float32))


def with_signatures(model: bytes, **definitions: bytes) -> bytes:
    """The model with metadata as ``tools/signature`` adds it."""
    import flatbuffers
    from flatbuffers import flexbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    packed = flexbuffers.Builder()
    with packed.Map():
        for name in sorted(definitions):
            packed.Key(name)
            packed.String(definitions[name].decode())
    content = schema.BufferT()
    content.data = np.frombuffer(bytes(packed.Finish()), np.uint8)
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    made.buffers.append(content)
    entry = schema.MetadataT()
    entry.name, entry.buffer = "signature_defs_metadata", len(made.buffers) - 1
    made.metadata = [*(made.metadata or []), entry]
    builder = flatbuffers.Builder()
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def definition(x: str, y: str) -> bytes:
    proto = SignatureDef(method_name="tensorflow/serving/predict")
    for info, name in ((proto.inputs["in"], x), (proto.outputs["out"], y)):
        info.name, info.dtype = name, 1
        info.tensor_shape.dim.add(size=1)
        info.tensor_shape.dim.add(size=1)
    serialized: bytes = proto.SerializeToString()
    return serialized


def names(model: TfliteServable) -> tuple[str, str]:
    [x], [y] = (
        [spec.tensor for spec in specs.values()]
        for specs in (model.signatures["serving_default"].inputs, model.signatures["serving_default"].outputs)
    )
    return x, y


def test_a_model_without_signatures(halves: bytes) -> None:
    servable = TfliteServable(halves, interpreters=1)
    signature = servable.signatures["serving_default"]
    assert list(servable.signatures) == ["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    [(x, spec)], [y] = signature.inputs.items(), signature.outputs
    assert (spec.dtype.name, spec.shape, ":" in x) == ("DT_FLOAT", (1, 1), False)
    for sent in (floats([1]), floats(1, 2, 5), floats([1], [2]), np.array(3, np.float32), floats([1])):
        got = servable.predict("", {x: sent})[y]
        np.testing.assert_array_equal(got, sent / 2 + 2)
        assert got.shape == sent.shape


def test_signatures_in_the_metadata(halves: bytes) -> None:
    x, y = names(TfliteServable(halves, interpreters=1))
    early = definition(x.partition(":")[0] + ":0", y.partition(":")[0] + ":0")
    servable = TfliteServable(with_signatures(halves, serving_default=definition(x, y), early=early), interpreters=2)
    assert list(servable.signatures) == ["early", "serving_default"]
    proto = servable.signatures["serving_default"].to_proto()
    assert (proto.inputs["in"].name, proto.outputs["out"].name) == (x, y)
    for name in servable.signatures:
        assert servable.predict(name, {"in": floats([4])})["out"].tolist() == [[4]]


@pytest.mark.parametrize("which", [0, 1])
def test_signatures_of_other_tensors_are_refused(halves: bytes, which: int) -> None:
    pair = list(names(TfliteServable(halves, interpreters=1)))
    pair[which] = "nowhere"
    with pytest.raises(LoadError, match="references an unknown tensor: Unknown tensor 'nowhere'") as caught:
        TfliteServable(with_signatures(halves, serving_default=definition(*pair)), interpreters=1)
    assert caught.value.code is Code.INTERNAL


def test_signatures_that_are_none_are_refused(halves: bytes) -> None:
    with pytest.raises(LoadError, match="Invalid SignatureDefs found in TfLite model") as caught:
        TfliteServable(with_signatures(halves, serving_default=b"zzz"), interpreters=1)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("name", DTYPES)
def test_every_element_type(tf: Any, name: str) -> None:
    dtype = dtype_named(name)
    spec = tf.TensorSpec([None, 2], tf.dtypes.as_dtype(dtype.number))
    servable = TfliteServable(convert(tf, lambda x: {"y": tf.reshape(x, [-1])}, x=spec), interpreters=1)
    signature = servable.signatures["serving_default"]
    assert [each.dtype for each in (*signature.inputs.values(), *signature.outputs.values())] == [dtype, dtype]
    [x], [y] = signature.inputs, signature.outputs
    if name == "DT_STRING":
        sent = np.array([[b"a", b""], [b"\xff", b"long" * 9]], object)
    else:
        sent = np.array([[0, 1], [5, 100]]).astype(dtype.numpy)
    got = servable.predict("", {x: sent})[y]
    assert got.dtype == dtype.numpy
    assert got.tolist() == sent.ravel().tolist()
    with pytest.raises(RequestError, match=rf"Expects arg\[0\] to be {dtype.label} but double"):
        servable.predict("", {x: np.zeros((1, 2))})


def test_refusals(tf: Any) -> None:
    spec = tf.TensorSpec([None, 3], tf.float32)
    table = tf.constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    servable = TfliteServable(convert(tf, lambda x: {"y": tf.matmul(x, table)}, x=spec), interpreters=1)
    [x], [y] = (servable.signatures["serving_default"].inputs, servable.signatures["serving_default"].outputs)
    good = floats([1, 0, 0])
    for call, code, text in (
        (("none", {x: good}), Code.FAILED_PRECONDITION, 'Serving signature key "none" not found.'),
        (("", {}), Code.INVALID_ARGUMENT, "input size does not match signature"),
        (("", {x: good}, ["z"]), Code.INVALID_ARGUMENT, "output tensor alias not found in signature: z"),
        (("", {x: floats([1, 2])}), Code.INTERNAL, "Failed to allocate tensors"),
        (("", {x: np.zeros((5000, 3), "f4")}), Code.INVALID_ARGUMENT, "at most 4096 are computed at once"),
    ):
        with pytest.raises(RequestError) as caught:
            servable.predict(*call)
        assert caught.value.code is code
        assert text in caught.value.problem
        assert servable.predict("", {x: good})[y].tolist() == [[0, 1]]


@pytest.mark.parametrize("data", [b"", b"no model at all", b"....TFL3" + bytes(100)])
def test_what_is_no_model_is_refused(tf: Any, data: bytes) -> None:
    with pytest.raises(LoadError) as caught:
        TfliteServable(data, interpreters=1)
    assert caught.value.code in (Code.INVALID_ARGUMENT, Code.INTERNAL)


def test_many_threads_get_their_own_answers(halves: bytes) -> None:
    servable = TfliteServable(halves, interpreters=2)
    x, y = names(servable)

    def one(number: int) -> bool:
        sent = np.full((1 + number % 3, 1), number, np.float32)
        got = servable.predict("", {x.partition(":")[0]: sent})[y.partition(":")[0]]
        return np.array_equal(got, sent / 2 + 2)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(200)))
