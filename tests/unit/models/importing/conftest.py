"""Tiny models, written byte by byte: no test here needs the programs that usually write them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensconce.models.importing.child import carry_out
from ensconce.models.importing.order import Order, kind_of
from ensconce.models.importing.record import ImportRecord
from ensconce.serving.engines.openvino import OpenVinoServable

Floats = NDArray[np.float32]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes | str]) -> bytes:
    """A protobuf message: integers as varints, all else with its length."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def onnx_model(weights: Floats, location: bytes | None = None) -> bytes:
    """softmax(x @ weights) as an ONNX model (onnx.proto): x [n, rows] -> y [n, columns].

    With ``location`` the weights are in another file, which that entry of ``external_data`` names.
    """

    def value(name: str, size: int) -> bytes:
        shape = message((1, message((2, "n"))), (1, message((1, size))))
        return message((1, name), (2, message((1, message((1, 1), (2, shape))))))

    rows, columns = weights.shape
    where = ((9, weights.tobytes()),) if location is None else ((13, location), (14, 1))
    tensor = message((1, rows), (1, columns), (2, 1), (8, "w"), *where)
    graph = message(
        (1, message((1, "x"), (1, "w"), (2, "h"), (4, "MatMul"))),
        (1, message((1, "h"), (2, "y"), (4, "Softmax"))),
        (2, "g"),
        (5, tensor),
        (11, value("x", rows)),
        (12, value("y", columns)),
    )
    return message((1, 8), (7, graph), (8, message((2, 17))))


def frozen_graph(weights: Floats) -> bytes:
    """The same as a GraphDef (graph.proto): placeholder ``input``, ``logits``, ``predict``, and ``klass`` of int64."""

    def attribute(key: str, value: bytes) -> tuple[int, bytes]:
        return 5, message((1, key), (2, value))

    def node(name: str, op: str, inputs: tuple[str, ...], *attributes: tuple[int, bytes]) -> tuple[int, bytes]:
        return 1, message((1, name), (2, op), *((3, each) for each in inputs), *attributes)

    def shape(*sizes: int) -> bytes:
        # A size of -1 is ten bytes long.
        return b"".join(message((2, message((1, size & (2**64 - 1))))) for size in sizes)

    rows, columns = weights.shape
    real, integer = message((6, 1)), message((6, 3))
    constant = message((1, 1), (2, shape(rows, columns)), (4, weights.tobytes()))
    axis = message((1, 3), (2, b""), (4, struct.pack("<i", 1)))
    return message(
        node("input", "Placeholder", (), attribute("dtype", real), attribute("shape", message((7, shape(-1, rows))))),
        node("w", "Const", (), attribute("dtype", real), attribute("value", message((8, constant)))),
        node("logits", "MatMul", ("input", "w"), attribute("T", real)),
        node("predict", "Softmax", ("logits",), attribute("T", real)),
        node("axis", "Const", (), attribute("dtype", integer), attribute("value", message((8, axis)))),
        node(
            "klass",
            "ArgMax",
            ("predict", "axis"),
            attribute("T", real),
            attribute("Tidx", integer),
            attribute("output_type", message((6, 9))),
        ),
    )


def softmax(x: Floats) -> Floats:
    power = np.exp(x - x.max(-1, keepdims=True))
    result: Floats = power / power.sum(-1, keepdims=True)
    return result


@dataclass(frozen=True)
class Tiny:
    """One set of weights in two forms, and samples."""

    onnx: Path
    frozen: Path
    samples: Path
    weights: Floats
    x: Floats

    def move_weights(self, location: bytes) -> None:
        """Put the ONNX model's weights into a file ``w`` beside it, named by this entry of ``external_data``."""
        (self.onnx.parent / "w").write_bytes(self.weights.tobytes())
        self.onnx.write_bytes(onnx_model(self.weights, location))

    def answers(self) -> Floats:
        return softmax(self.x @ self.weights)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    generator = np.random.default_rng(5)
    weights = generator.standard_normal((4, 3)).astype(np.float32)
    x = generator.standard_normal((20, 4)).astype(np.float32)
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(onnx_model(weights))
    (folder / "m.pb").write_bytes(frozen_graph(weights))
    np.savez(folder / "samples.npz", x=x, input=x)
    return Tiny(folder / "m.onnx", folder / "m.pb", folder / "samples.npz", weights, x)


Carry = Callable[..., tuple[ImportRecord, Path]]


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
        # Of an ONNX file there is a copy with nothing beside it.
        assert [path.name for path in (folder / "work").iterdir()] in ([], ["alone"])
        return record, folder / "version"

    return run


@pytest.fixture(scope="session")
def served() -> Callable[[Path], OpenVinoServable]:
    """What an import made, loaded."""

    def load(folder: Path) -> OpenVinoServable:
        return OpenVinoServable({path.name: path.read_bytes() for path in folder.iterdir()})

    return load


@pytest.fixture(scope="session")
def saved() -> Callable[..., Path]:
    """Writes SavedModels as TensorFlow 1 does: what ``signatures`` builds, as (inputs, outputs, method)."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, which writes SavedModels, is not installed")
    v1 = tf.compat.v1

    def write(folder: Path, signatures: Callable[[], dict[str, Any]], **options: Any) -> Path:
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

    return write
