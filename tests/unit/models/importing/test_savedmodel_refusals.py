"""SavedModels that cannot be converted, or only taken as they are."""

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

Carry = Callable[..., tuple[ImportRecord, Path]]


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
def test_what_cannot_be_converted(tmp_path: Path, carry: Carry, build: Any, text: str, saved: Any) -> None:
    with pytest.raises(InputError, match=text) as caught:
        carry(saved(tmp_path / "m", build))
    assert caught.value.check == "import.convert"
    assert "--engine tensorflow" in str(caught.value.remedy)


def test_what_the_original_cannot_be_asked(tmp_path: Path, carry: Carry, saved: Any) -> None:
    def build() -> dict[str, Any]:
        x = v1.placeholder(tf.int32, [None])
        return {"s": ({"x": x}, {"y": tf.gather(tf.constant([1.0]), x)}, "predict")}

    with pytest.raises(InputError, match="the original cannot compute") as caught:
        carry(saved(tmp_path / "m", build))
    assert caught.value.check == "import.samples"
    np.savez(tmp_path / "s.npz", x=np.zeros(3, np.int32))
    carry(tmp_path / "m", samples=str(tmp_path / "s.npz"))


def test_sources_that_tensorflow_does_not_serve(tmp_path: Path, carry: Carry, saved: Any) -> None:
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


def test_for_tensorflow_as_it_is(tmp_path: Path, carry: Carry, saved: Any) -> None:
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
