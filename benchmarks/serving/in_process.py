"""A model in process, asked by threads that wait for each answer: what serving adds nothing to.

    python in_process.py ENGINE NAME=FOLDER ...

ENGINE is ``ensconce`` (the server's own engine, folders as ``ensconce model import --output`` makes them) or
``tensorflow`` (SavedModels, loaded and called as TensorFlow's guide says; the compute inside TensorFlow Serving).
Orders come as JSON lines on standard input, answers go to standard output: ``{"model", "images": FILE.npy,
"concurrency", "requests"}`` gives ``[[start, seconds], ...]``; with ``"classes": true`` the images' classes instead.
The tensor is made anew for each request, as a server has to.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[np.ndarray], np.ndarray]
PART = 16


def main() -> None:
    """Load the models, say so, obey."""
    engine, *models = sys.argv[1:]
    load = {"ensconce": ensconce, "tensorflow": tensorflow}[engine]
    calls = {name: load(Path(folder)) for name, _, folder in (each.partition("=") for each in models)}
    output = os.fdopen(os.dup(1), "w")
    output.write(json.dumps("ready") + "\n")
    output.flush()
    loaded: dict[str, np.ndarray] = {}
    for line in sys.stdin:
        order = json.loads(line)
        file = order["images"]
        if file not in loaded:
            loaded[file] = np.load(file)
        call, images = calls[order["model"]], loaded[file]
        found: Any
        if order.get("classes"):
            parts = [images[at : at + PART] for at in range(0, len(images), PART)]
            found = [int(each) for part in parts for each in call(part)]
        else:
            found = ask(call, images, order["concurrency"], order["requests"])
        output.write(json.dumps(found) + "\n")
        output.flush()


def ask(call: Call, images: np.ndarray, concurrency: int, requests: int) -> list[tuple[float, float]]:
    """Start and duration of each request; the next begins when one has ended, though its thread may have to wait."""
    found: list[list[tuple[float, float]]] = [[] for _ in range(concurrency)]
    begin = threading.Barrier(concurrency)

    def asker(index: int) -> None:
        mine = found[index]
        begin.wait()
        start = time.perf_counter()
        for _ in range(requests // concurrency + (index < requests % concurrency)):
            call(images)
            end = time.perf_counter()
            mine.append((start, end - start))
            start = end

    threads = [threading.Thread(target=asker, args=(index,)) for index in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [each for mine in found for each in mine]


def ensconce(folder: Path) -> Call:
    """The engine of the server."""
    from ensconce.serving.engines.folder import load_folder

    servable = load_folder(folder)
    [name] = servable.signatures["serving_default"].inputs
    return lambda images: servable.predict("serving_default", {name: images})["classes"]


def tensorflow(folder: Path) -> Call:
    """The SavedModel in TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    [name] = signature.structured_input_signature[1]

    def call(images: np.ndarray) -> np.ndarray:
        # The reference keeps the variables alive.
        assert loaded is not None
        found = signature(**{name: tf.constant(images)})
        found["probabilities"].numpy()
        classes: np.ndarray = found["classes"].numpy()
        return classes

    return call


if __name__ == "__main__":
    main()
