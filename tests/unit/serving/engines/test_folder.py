from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensconce.errors import InputError
from ensconce.serving.engines import LoadError
from ensconce.serving.engines.folder import FolderOptions, load_folder
from ensconce.tfserving.refusal import Code

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


@pytest.fixture
def converted(tmp_path: Path, digits_files: dict[str, bytes]) -> Path:
    for name, data in digits_files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("held", [(), ("notes.txt",), ("model.tflite",), ("model.xml", "model.bin")])
def test_a_folder_without_a_model_is_refused_in_the_originals_words(tmp_path: Path, held: tuple[str, ...]) -> None:
    for name in held:
        (tmp_path / name).touch()
    with pytest.raises(LoadError) as caught:
        load_folder(tmp_path)
    error = caught.value
    assert error.code is error.altered(rule="other").code is Code.NOT_FOUND
    assert error.problem == (
        f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {tmp_path}. "
        "Check that the directory exists and that you have the right permissions for accessing it."
    )
    assert error.found == (", ".join(sorted(held)) or "an empty folder")
    assert ("--prefer_tflite_model" in str(error)) == ("model.tflite" in held)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="Could not find SavedModel") as caught:
        load_folder(tmp_path / "none")
    assert caught.value.found == "No such file or directory"


@needs_openvino
def test_a_converted_model(converted: Path, held_out: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]) -> None:
    images, labels = held_out
    # Our own conversion comes before what it was made from.
    (converted / "saved_model.pb").touch()
    servable = load_folder(converted, FolderOptions(threads=1, precision="bf16", prefer_tflite_model=True))
    assert (servable.predict("", {"images": images})["classes"] == labels).mean() > 0.97


@needs_openvino
def test_a_converted_model_reached_through_a_link(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("versions") / "1"
    link.symlink_to(converted)
    assert "serving_default" in load_folder(link).signatures


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_missing_file_is_named(converted: Path, name: str) -> None:
    (converted / name).unlink()
    with pytest.raises(InputError, match=name):
        load_folder(converted)


def test_what_is_too_large_is_not_read(converted: Path) -> None:
    with (converted / "signatures.json").open("r+b") as file:
        file.truncate(2**21)
    with pytest.raises(InputError, match=r"signatures\.json"):
        load_folder(converted)
    (converted / "signatures.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        load_folder(converted)
    assert caught.value.check == "engine.signatures"


def test_weights_that_are_too_large_are_not_read(converted: Path) -> None:
    with (converted / "model.bin").open("r+b") as file:
        file.truncate(2**37 + 1)
    with pytest.raises(InputError, match="too large"):
        load_folder(converted)


def test_a_saved_model_and_a_tflite_model(tf: Any, tmp_path: Path) -> None:
    class Half(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])  # type: ignore[untyped-decorator]
        def half(self, x: Any) -> Any:
            return {"y": x / 2}

    module = Half()
    tf.saved_model.save(module, str(tmp_path), signatures=module.half)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path)).convert()
    (tmp_path / "model.tflite").write_bytes(lite)
    x = np.array([3, 4], np.float32)
    assert load_folder(tmp_path).predict("", {"x": x})["y"].tolist() == [1.5, 2]
    servable = load_folder(tmp_path, FolderOptions(prefer_tflite_model=True, num_tflite_pools=1))
    [name] = servable.signatures["serving_default"].inputs
    assert name == "serving_default_x"
    assert [each.tolist() for each in servable.predict("", {name: x}).values()] == [[1.5, 2]]
    shutil.move(tmp_path / "saved_model.pb", tmp_path / "kept")
    with pytest.raises(LoadError):
        load_folder(tmp_path)
