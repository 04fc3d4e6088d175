"""The process that converts: one order from standard input, what becomes of it to descriptor 3, a JSON line each.

Whatever TensorFlow, OpenVINO and NNCF print goes to standard output and error, which the command keeps in a file.
Lines: ``{"stage": name, "done": n, "of": m}``; at last ``{"record": ...}``, or ``{"error": fields, "status": n}``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from typing import Any, Final

from ensconce.errors import EnsconceError, InputError
from ensconce.models.importing.compare import compare, judge
from ensconce.models.importing.direct import direct_part, source_file
from ensconce.models.importing.order import Order, source_sha256
from ensconce.models.importing.original import Run, original_of
from ensconce.models.importing.parts import Part, share_graphs, write_parts
from ensconce.models.importing.quantise import import_nncf, quantise
from ensconce.models.importing.record import ImportRecord
from ensconce.models.importing.samples import load_samples, samples_for
from ensconce.models.importing.savedmodel import SavedModel
from ensconce.models.openvino import import_openvino
from ensconce.models.source import copy_tree

__all__ = ["EVENTS", "main"]

EVENTS: Final = 3
"""The descriptor that events go to."""
_PR_SET_PDEATHSIG: Final = 1

Stage = Callable[[str, int, int], None]


def main() -> None:
    """Obey one order."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit(1)  # the command was killed before it could be watched
    with os.fdopen(EVENTS, "w") as events:

        def say(**event: object) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        try:
            order = Order.model_validate_json(sys.stdin.buffer.read())
            record = carry_out(order, lambda stage, done, of: say(stage=stage, done=done, of=of))
            say(record=record.model_dump(mode="json"))
        except EnsconceError as error:
            traceback.print_exc()
            say(error=error.fields(), status=error.exit_status)


def carry_out(order: Order, stage: Stage) -> ImportRecord:
    """Convert into ``order.target``, compare, and say what was done.

    Raises:
        EnsconceError: ``import.*``.
    """
    stage("reading", 0, 0)
    sha256 = source_sha256(Path(order.source))
    agreement, outputs = None, ()
    if order.engine == "tensorflow":
        SavedModel(import_tensorflow(), Path(order.source))
        copy_tree(Path(order.source), Path(order.target))
    else:
        agreement, outputs = _convert(order, stage)
    return ImportRecord(
        kind=order.kind,
        source_sha256=sha256,
        commitment_key=ImportRecord.new_key(),
        engine=order.engine,
        precision=order.precision,
        agreement=agreement,
        outputs=outputs,
    )


def _convert(order: Order, stage: Stage) -> Any:
    openvino = import_openvino()
    nncf = import_nncf() if order.precision == "int8" else None
    arrays = {} if order.samples is None else load_samples(Path(order.samples))
    stage("converting", 0, 0)
    parts, original, original_name = _parts(openvino, order)
    samples = {part.name: samples_for(part, arrays) for part in parts}
    if arrays and all(each.random for each in samples.values()):
        wanted = sorted({name for part in parts for name in part.feeds})
        raise InputError(
            "import.samples",
            "none of the samples is of an input",
            found=", ".join(sorted(arrays))[:200],
            rule=f"arrays called {', '.join(wanted)}",
            remedy="name the arrays as the model's inputs, or its features, are named",
        )
    graphs = share_graphs(parts)
    for index, graph in enumerate(graphs if nncf is not None else ()):
        stage("quantising", index, len(graphs))
        quantise(nncf, graph, parts, samples)
    stage("writing", 0, 0)
    write_parts(parts, graphs, order.precision, Path(order.target), openvino)
    total, done = sum(len(each.runs) for each in samples.values()), 0

    def one_more() -> None:
        nonlocal done
        done += 1
        stage("comparing", done, total)

    stage("comparing", 0, total)
    target = Path(order.target)
    distances = compare(openvino, target, order.precision, parts, samples, original, one_more)
    return judge(distances, samples, original_name, order.tolerance)


def _parts(openvino: Any, order: Order) -> tuple[list[Part], Run, str]:
    if order.kind == "saved-model":
        tf = import_tensorflow()
        model = SavedModel(tf, Path(order.source))
        return model.parts(openvino, Path(order.work)), model.run, f"TensorFlow {tf.__version__}"
    part = direct_part(openvino, order)
    return [part], *original_of(openvino, order, source_file(order))


def import_tensorflow() -> Any:
    """The module ``tensorflow``.

    Raises:
        InputError: ``import.tensorflow``.
    """
    if util.find_spec("tensorflow") is None:
        raise InputError(
            "import.tensorflow",
            "TensorFlow, which reads SavedModels, is not installed",
            remedy="an environment for importing, as docs/how-to/import-a-model.md has it; serving needs no TensorFlow",
        )
    tf = import_module("tensorflow")
    tf.get_logger().setLevel("ERROR")
    return tf


if __name__ == "__main__":
    main()
