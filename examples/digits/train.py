"""Train the digits model, save it for TensorFlow Serving, convert it for OpenVINO, and compare the two.

``python examples/digits/train.py`` replaces ``saved_model/``, ``openvino/`` and ``heldout.npz`` in this folder (or in
the folder given with ``--out``). Seeds are fixed and operations deterministic: the same versions on the same kind of
processor give the same weights. It ends with an error when a threshold is missed, and then leaves the folder alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its reductions depend on the number of threads

import keras
import numpy as np
import openvino
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

SEED = 20261101
HELD_OUT = 360
BATCH = 64
LEAST_ACCURACY = 0.98
LARGEST_DIFFERENCE = 1e-4
SIGNATURE = "serving_default"


def split_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The 1,797 images as (training images, training labels, held-out images, held-out labels).

    Images are uint8 [n,8,8] with values 0..16, labels uint8 [n]; the held-out part is stratified by label.
    """
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    return train_x, train_y, test_x, test_y


def build_network() -> keras.Model:
    """A small CNN from pixel values 0..16, float32 [-1,8,8,1], to ten probabilities, float32 [-1,10]."""
    images = keras.Input((8, 8, 1), name="images")
    x = keras.layers.Rescaling(1 / 16)(images)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="gelu")(x)
    x = keras.layers.Conv2D(48, 3, padding="same", activation="gelu")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(64, 3, padding="same", activation="gelu")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.4)(x)
    x = keras.layers.Dense(48, activation="gelu")(x)
    return keras.Model(images, keras.layers.Dense(10, activation="softmax")(x))


def train(network: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    """Fit ``network`` on the training part, each image shifted by up to one pixel anew in every epoch."""
    rng = np.random.default_rng(SEED)
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(images) // BATCH))
    network.compile(optimizer=keras.optimizers.Adam(schedule), loss="sparse_categorical_crossentropy")
    for _ in range(epochs):
        padded = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1)))
        rows, columns = rng.integers(0, 3, size=(2, len(images)))
        shifted = np.stack([p[r : r + 8, c : c + 8] for p, r, c in zip(padded, rows, columns, strict=True)])
        order = rng.permutation(len(images))
        for batch in np.array_split(order, -(-len(order) // BATCH)):
            network.train_on_batch(shifted[batch, :, :, None], labels[batch])


def save(network: keras.Model, folder: Path) -> None:
    """Write ``network`` to ``folder`` as a SavedModel with one signature."""
    module = tf.Module()
    module.network = network

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = network(images, training=False)
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=-1)}

    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})


def convert(signature: Any, folder: Path) -> None:
    """Freeze the signature and write it as OpenVINO IR in float32, with its names beside it in ``signatures.json``.

    Freezing comes first because OpenVINO's reader of SavedModels does not find the variables of current Keras.
    """
    frozen = convert_variables_to_constants_v2(signature)
    # A function's outputs are flattened in the order of their sorted names.
    frozen_names = dict(zip(sorted(signature.structured_outputs), [t.name for t in frozen.outputs], strict=True))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
    model = openvino.convert_model(graph)
    model.input().get_tensor().set_names({"images"})
    for name, frozen_name in frozen_names.items():
        model.output(frozen_name).get_tensor().set_names({name})
    folder.mkdir(parents=True)
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    signatures = {
        SIGNATURE: {
            "method_name": "tensorflow/serving/predict",
            "inputs": {"images": {"tensor": "images", "dtype": "DT_FLOAT", "shape": [-1, 8, 8, 1]}},
            "outputs": {
                "classes": {"tensor": "classes", "dtype": "DT_INT64", "shape": [-1]},
                "probabilities": {"tensor": "probabilities", "dtype": "DT_FLOAT", "shape": [-1, 10]},
            },
        }
    }
    (folder / "signatures.json").write_text(json.dumps({"signatures": signatures}, indent=2) + "\n")


def compare(signature: Any, openvino_folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Print accuracy, difference and agreement of both models on the held-out images; exit when one is not enough."""
    pixels = images.astype(np.float32)[..., None]
    original = {name: value.numpy() for name, value in signature(images=tf.constant(pixels)).items()}
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(openvino_folder / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    result = compiled({"images": pixels})
    converted = {name: result[compiled.output(name)] for name in original}
    if not np.array_equal(original["probabilities"].argmax(-1), original["classes"]):
        raise SystemExit("classes are not the largest probabilities")
    accuracy = {
        "SavedModel": float((original["classes"] == labels).mean()),
        "OpenVINO": float((converted["classes"] == labels).mean()),
    }
    difference = float(np.abs(original["probabilities"] - converted["probabilities"]).max())
    agreement = float((original["classes"] == converted["classes"]).mean())
    for name, value in accuracy.items():
        print(f"accuracy on {len(labels)} held-out images, {name}: {value:.2%}")
    print(f"largest difference between probabilities: {difference:.2e}; top-1 agreement: {agreement:.2%}")
    if min(accuracy.values()) < LEAST_ACCURACY or difference > LARGEST_DIFFERENCE or agreement < 1:
        raise SystemExit("a threshold is missed; nothing was replaced")


def main() -> None:
    """Train, save, convert, compare, and only then replace what is in the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: here)")
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    train_x, train_y, test_x, test_y = split_digits()
    network = build_network()
    train(network, train_x, train_y, arguments.epochs)
    weights = np.concatenate([w.numpy().ravel() for w in network.trainable_weights])
    print(f"{weights.size} trained weights, {np.count_nonzero(weights)} of them not zero")

    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.out, prefix=".train-") as name:
        fresh = Path(name)
        bare = build_network()  # without the optimizer's state, which would triple the SavedModel
        bare.set_weights(network.get_weights())
        save(bare, fresh / "saved_model")
        saved = tf.saved_model.load(str(fresh / "saved_model"))  # kept: it owns the variables of its signatures
        signature = saved.signatures[SIGNATURE]
        convert(signature, fresh / "openvino")
        compare(signature, fresh / "openvino", test_x, test_y)
        np.savez_compressed(fresh / "heldout.npz", images=test_x, labels=test_y)
        for part in ("saved_model", "openvino"):
            shutil.rmtree(arguments.out / part, ignore_errors=True)
        for part in ("saved_model", "openvino", "heldout.npz"):
            (fresh / part).replace(arguments.out / part)


if __name__ == "__main__":
    main()
