from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.tfserving.dtypes import BFLOAT16
from ensconce.tfserving.refusal import Code, RequestError

if importlib.util.find_spec("openvino") is None:
    pytest.skip("openvino is not installed", allow_module_level=True)

from ensconce.serving.engines.openvino import OpenVinoServable

Held = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def digits(digits_files: dict[str, bytes]) -> OpenVinoServable:
    return OpenVinoServable({name: bytearray(data) for name, data in digits_files.items()})


def test_digits_are_read(digits: OpenVinoServable, held_out: Held) -> None:
    images, labels = held_out
    outputs = digits.predict("", {"images": images})
    assert outputs["classes"].dtype == np.int64
    assert (outputs["classes"] == labels).mean() >= 0.98
    np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(outputs["probabilities"].argmax(-1), outputs["classes"])


def test_output_filter(digits: OpenVinoServable, held_out: Held) -> None:
    assert set(digits.predict("serving_default", {"images": held_out[0][:2]}, ["classes"])) == {"classes"}


def test_many_threads_get_their_own_answers(digits: OpenVinoServable, held_out: Held) -> None:
    images, _ = held_out
    whole = digits.predict("", {"images": images})["probabilities"]

    def one(index: int) -> np.ndarray[Any, Any]:
        return digits.predict("", {"images": images[index : index + 1]})["probabilities"][0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(len(images))))
    np.testing.assert_allclose(np.stack(answers), whole, atol=1e-5)


def test_weights_in_the_working_directory_are_not_the_models(
    digits_files: dict[str, bytes], held_out: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO would take a file called ``.bin`` for the weights, whatever weights it is given."""
    (tmp_path / ".bin").write_bytes(bytes(len(digits_files["model.bin"])))
    monkeypatch.chdir(tmp_path)
    images, labels = held_out
    classes = OpenVinoServable(digits_files).predict("", {"images": images})["classes"]
    assert (classes == labels).mean() >= 0.98
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((1, 8, 8, 1), np.float64), "Expects arg[0] to be float but double is provided"),
        (np.zeros((1, 7, 8, 1), np.float32), "Expects arg[0] (images) to have shape [-1,8,8,1] but had shape"),
        (np.zeros((0, 8, 8, 1), np.float32), "The model cannot compute with these inputs, of shapes images: [0,8,8,1]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(digits: OpenVinoServable, array: np.ndarray[Any, Any], text: str) -> None:
    with pytest.raises(RequestError) as caught:
        digits.predict("", {"images": array})
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert text in caught.value.problem


def test_a_refused_request_does_no_harm_to_others(digits: OpenVinoServable, held_out: Held) -> None:
    image = held_out[0][:1]
    before = digits.predict("", {"images": image})["probabilities"]
    for _ in range(8):
        with pytest.raises(RequestError):
            digits.predict("", {"images": np.zeros((0, 8, 8, 1), np.float32)})
    np.testing.assert_array_equal(digits.predict("", {"images": image})["probabilities"], before)


@pytest.mark.parametrize(("quick", "bad"), [(False, (0, 8, 8, 1)), (True, (1, 7, 8, 1))])
def test_an_inference_that_fails_half_way_does_no_harm_to_others(
    digits_files: dict[str, bytes], held_out: Held, quick: bool, bad: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensconce.serving.engines.openvino_graph._QUICK_S", 1000 if quick else 0)
    digits = OpenVinoServable(digits_files)
    image = held_out[0][:1]
    before = digits.predict("", {"images": image})["probabilities"]
    # Past the check of shapes, straight into the compiled graphs: OpenVINO 2026.4 then fails the next request as well.
    graph = digits._plans["serving_default"].graph
    for pool in (graph._any, *graph._pools.values()):
        with pytest.raises(RuntimeError):
            pool.infer([graph._tensor(np.zeros(bad, np.float32), None)])
    for count in (1, 2, 1):
        got = digits.predict("", {"images": np.repeat(image, count, 0)})["probabilities"]
        np.testing.assert_allclose(got, np.repeat(before, count, 0), atol=1e-6)


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "signatures.json"])
def test_a_missing_file_is_refused(digits_files: dict[str, bytes], name: str) -> None:
    with pytest.raises(InputError) as caught:
        OpenVinoServable({key: data for key, data in digits_files.items() if key != name})
    assert caught.value.check == "engine.files"


@pytest.mark.parametrize("change", [{"model.xml": b"<net"}, {"model.xml": b""}, {"model.bin": b"\0" * 100}])
def test_a_broken_model_is_refused_without_quoting_it(digits_files: dict[str, bytes], change: dict[str, bytes]) -> None:
    with pytest.raises(InputError) as caught:
        OpenVinoServable({**digits_files, **change})
    assert caught.value.check == "engine.model"
    assert caught.value.__cause__ is None


def tampered(files: dict[str, bytes], kind: str, name: str, **fields: Any) -> dict[str, bytes]:
    document = json.loads(files["signatures.json"])
    entry = document["signatures"]["serving_default"][kind]
    entry[name] = {**entry.get(name, {}), **fields}
    return {**files, "signatures.json": json.dumps(document).encode()}


@pytest.mark.parametrize(
    ("kind", "name", "fields", "text"),
    [
        ("inputs", "images", {"tensor": "pixels"}, "tensor pixels, which the model does not have"),
        ("outputs", "classes", {"dtype": "DT_INT32"}, "output classes is DT_INT32, the model's tensor is i64"),
        ("outputs", "classes", {"dtype": "DT_STRING"}, "output classes is DT_STRING, the model's tensor is i64"),
        ("inputs", "images", {"shape": [-1, 9, 8, 1]}, "the shape of input images is not the model's"),
        ("inputs", "images", {"shape": [-1]}, "the shape of input images is not the model's"),
    ],
)
def test_signatures_that_do_not_fit_the_model_are_refused(
    digits_files: dict[str, bytes], kind: str, name: str, fields: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError) as caught:
        OpenVinoServable(tampered(digits_files, kind, name, **fields))
    assert caught.value.check == "engine.signatures"
    assert text in caught.value.problem


def echo_model(folder: Path, dtypes: dict[str, str]) -> dict[str, bytes]:
    """A model that adds nothing: one input and one output for each (DT name, OpenVINO type)."""
    import openvino as ov  # type: ignore[import-untyped]
    from openvino import opset13 as ops  # type: ignore[import-untyped]

    parameters, results, inputs, outputs = [], [], {}, {}
    for name, kind in dtypes.items():
        parameter = ops.parameter(ov.PartialShape([-1, 2]), getattr(ov.Type, kind))
        parameter.output(0).get_tensor().set_names({f"{name}_in"})
        same = ops.concat([parameter], 0)
        same.output(0).get_tensor().set_names({f"{name}_out"})
        parameters.append(parameter)
        results.append(ops.result(same))
        inputs[name] = {"tensor": f"{name}_in", "dtype": name, "shape": [-1, 2]}
        outputs[name] = {"tensor": f"{name}_out", "dtype": name, "shape": [-1, 2]}
    ov.save_model(ov.Model(results, parameters), folder / "model.xml", compress_to_fp16=False)
    signature = {"method_name": "tensorflow/serving/predict", "inputs": inputs, "outputs": outputs}
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "signatures.json": json.dumps({"signatures": {"echo": signature}}).encode()}


def test_other_element_types(tmp_path: Path) -> None:
    types = {"DT_FLOAT": "f32", "DT_HALF": "f16", "DT_BFLOAT16": "bf16", "DT_INT32": "i32", "DT_UINT8": "u8"}
    servable = OpenVinoServable(echo_model(tmp_path, {**types, "DT_BOOL": "boolean", "DT_INT64": "i64"}), threads=1)
    numbers = np.array([[1, 0], [2, 3]])
    bits = (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    sent = {
        "DT_FLOAT": numbers.astype(np.float32),
        "DT_HALF": numbers.astype(np.float16),
        "DT_BFLOAT16": bits.view(BFLOAT16),
        "DT_INT32": numbers.astype(np.int32),
        "DT_UINT8": numbers.astype(np.uint8),
        "DT_BOOL": numbers > 1,
        "DT_INT64": numbers.astype(np.int64),
    }
    got = servable.predict("echo", sent)
    for name, array in sent.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array)


def test_a_signature_must_feed_every_input(tmp_path: Path) -> None:
    files = echo_model(tmp_path, {"DT_FLOAT": "f32", "DT_INT32": "i32"})
    document = json.loads(files["signatures.json"])
    del document["signatures"]["echo"]["inputs"]["DT_INT32"]
    with pytest.raises(InputError, match="it has 1 inputs, the model has 2"):
        OpenVinoServable({**files, "signatures.json": json.dumps(document).encode()})


def test_telemetry_is_refused_before_openvino_is_imported(digits_files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "openvino_telemetry").mkdir()
    (tmp_path / "openvino_telemetry" / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    program = (
        "import sys\n"
        "from ensconce.errors import InputError\n"
        "from ensconce.serving.engines.openvino import OpenVinoServable\n"
        "try: OpenVinoServable({})\n"
        "except InputError as error: assert error.check == 'engine.telemetry', error\n"
        "else: raise SystemExit('not refused')\n"
        "assert 'openvino' not in sys.modules\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=60)


def test_loading_and_predicting_writes_no_file(digits_files: dict[str, bytes], tmp_path: Path) -> None:
    program = (
        "import pickle, sys, numpy\n"
        "from ensconce.serving.engines.openvino import OpenVinoServable\n"
        "files = pickle.load(sys.stdin.buffer)\n"
        "OpenVinoServable(files).predict('', {'images': numpy.zeros((1, 8, 8, 1), 'f4')})\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )
    import pickle

    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    subprocess.run(
        [sys.executable, "-B", "-c", program],
        input=pickle.dumps(digits_files),
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )
    assert list(tmp_path.rglob("*")) == []


def test_answers_are_the_callers_own(digits: OpenVinoServable, held_out: Held) -> None:
    first = digits.predict("", {"images": held_out[0][:1]})["probabilities"]
    before = first.copy()
    digits.predict("", {"images": held_out[0][1:2]})
    np.testing.assert_array_equal(first, before)


def test_precision_is_chosen(digits_files: dict[str, bytes], held_out: Held) -> None:
    images, labels = held_out
    document = {**json.loads(digits_files["signatures.json"]), "precision": "bf16"}
    files = {**digits_files, "signatures.json": json.dumps(document).encode()}

    def hint(servable: OpenVinoServable) -> str:
        return str(servable._plans["serving_default"].graph._settings["INFERENCE_PRECISION_HINT"])

    assert hint(OpenVinoServable(files)) == "bf16"
    assert hint(OpenVinoServable(files, precision="f32")) == hint(OpenVinoServable(digits_files)) == "f32"
    servable = OpenVinoServable(digits_files, precision="bf16", threads=1)
    assert hint(servable) == "bf16"
    assert (servable.predict("", {"images": images})["classes"] == labels).mean() > 0.97


@pytest.mark.parametrize("quick", [True, False])
def test_models_quick_or_slow(
    digits_files: dict[str, bytes], held_out: Held, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensconce.serving.engines.openvino_graph._QUICK_S", 1000 if quick else 0)
    servable = OpenVinoServable(digits_files)
    graph = servable._plans["serving_default"].graph
    assert set(graph._pools) == ({((1, 8, 8, 1),)} if quick else set())
    images, labels = held_out
    whole = servable.predict("", {"images": images})
    assert (whole["classes"] == labels).mean() >= 0.98
    for count in (1, 3):
        got = servable.predict("", {"images": images[:count]})["probabilities"]
        np.testing.assert_allclose(got, whole["probabilities"][:count], atol=1e-5)


def test_shapes_are_remembered_but_not_for_ever(
    digits_files: dict[str, bytes], held_out: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensconce.serving.engines.openvino_graph._MOST_SHAPES", 4)
    servable = OpenVinoServable(digits_files)
    graph = servable._plans["serving_default"].graph
    for count in (*range(1, 12), 1):
        assert len(servable.predict("", {"images": held_out[0][:count]})["classes"]) == count
        assert len(graph._pools) <= 4


def test_large_inputs_are_let_go(digits: OpenVinoServable) -> None:
    images = np.zeros((2000, 8, 8, 1), np.float32)
    digits.predict("", {"images": images})
    kept = weakref.ref(images)
    del images
    gc.collect()
    assert kept() is None


def test_models_that_load_at_once_leave_the_working_directory_alone(digits_files: dict[str, bytes]) -> None:
    before = Path.cwd()
    with ThreadPoolExecutor(4) as threads:
        for made in [threads.submit(OpenVinoServable, digits_files) for _ in range(8)]:
            made.result()
    assert Path.cwd() == before
