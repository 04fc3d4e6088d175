"""A ResNet-50 whose answers mean something, without anybody's weights: seeded, calibrated, with a head that was fitted.

    python benchmarks/serving/make_resnet50.py FOLDER      (in the environment with TensorFlow)

Architecture: ``keras.applications.ResNet50``, 224x224x3, float32. Weights are random from a fixed seed; every batch
normalisation has the statistics of real activations, so that numbers stay in the range of a trained network's; the last
one of each block begins small, as is usual for training; and the head is the least-squares solution that tells the ten
digits of ``examples/digits`` apart, scaled up, so that top-1 agreement between precisions is that of a classifier with
margins, and not of coin tosses.

Makes ``FOLDER/saved_model``, and ``FOLDER/images.npz``: ``images`` (uint8 [n,8,8], values 0 to 16), ``labels``; of the
images the head has seen the first 240 alone. ``enlarged`` makes the network's input of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

SEED = 20261123
SIZE = 224
CALIBRATION = 32
FITTED = 240
GAMMA = 0.1
RIDGE = 1e-1


def enlarged(images: np.ndarray) -> np.ndarray:
    """uint8 [n,8,8] of 0 to 16 as float32 [n,224,224,3] of -1 to 1: every pixel a square of 28."""
    side = SIZE // images.shape[1]
    grey = images.astype(np.float32).repeat(side, axis=1).repeat(side, axis=2) / 8 - 1
    return np.ascontiguousarray(np.broadcast_to(grey[..., None], (*grey.shape, 3)))


def main() -> None:
    """Build, calibrate, fit, say how good it is, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf

    digits = np.load(Path(__file__).parents[2] / "examples/digits/heldout.npz")
    images, labels = digits["images"], digits["labels"]
    keras.utils.set_random_seed(SEED)
    network = keras.applications.ResNet50(weights=None, classes=10)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(np.full(layer.gamma.shape, GAMMA, np.float32))
    network(enlarged(images[:CALIBRATION]), training=True)
    pooled = keras.Model(network.input, network.layers[-2].output)
    features = np.concatenate(
        [pooled(enlarged(part), training=False).numpy() for part in np.array_split(images, len(images) // 30)]
    )
    kernel, bias = fit(features[:FITTED], labels[:FITTED])
    network.layers[-1].set_weights([kernel, bias])
    right = (features @ kernel + bias).argmax(-1) == labels
    print(f"accuracy on {FITTED} fitted digits {right[:FITTED].mean():.1%}, on others {right[FITTED:].mean():.1%}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    module = tf.Module()
    # The variables themselves: of Keras' own objects TensorFlow's session loader finds only some.
    module.weights = [variable.value for variable in network.variables]

    @tf.function(input_signature=[tf.TensorSpec([None, SIZE, SIZE, 3], tf.float32, name="images")])
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = network(images, training=False)
        return {"probabilities": probabilities, "classes": tf.argmax(probabilities, axis=-1)}

    tf.saved_model.save(module, str(folder / "saved_model"), signatures={"serving_default": serve})
    np.savez_compressed(folder / "images.npz", images=images, labels=labels)


def fit(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression of centred one-hot labels on centred features, in closed form; logits are a few units."""
    mean = features.mean(0)
    centred = (features - mean).astype(np.float64)
    targets = np.eye(10)[labels] - 0.1
    gram = centred @ centred.T
    ridge = RIDGE * np.trace(gram) / len(gram)
    kernel = 8 * centred.T @ np.linalg.solve(gram + ridge * np.eye(len(gram)), targets)
    return kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)


if __name__ == "__main__":
    main()
