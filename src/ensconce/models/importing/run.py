"""The command's side of an import: a folder aside, the process that converts, and the renaming at the end.

The version's folder appears whole or not at all. Whatever ends this process, the other one is killed, and what it wrote
is removed (but for SIGKILL, after which the folder aside stays).
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from ensconce.errors import EnsconceError, InputError, restore
from ensconce.files import sync_folder, write_aside
from ensconce.models.importing.order import TOLERANCES, Order, kind_of
from ensconce.models.importing.record import ImportRecord, Precision
from ensconce.models.layout import IMPORT, Engine

__all__ = ["Progress", "import_model"]

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is (0: nobody knows)."""

_EVENTS: Final = 3
_LOG_TAIL: Final = 4000


def import_model(
    source: Path,
    target: Path,
    *,
    engine: Engine = "openvino",
    precision: Precision = "f32",
    samples: Path | None = None,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    tolerance: float | None = None,
    progress: Progress | None = None,
) -> ImportRecord:
    """Make a version's folder of a model.

    Args:
        source: a SavedModel's folder, or a file: frozen graph, TFLite, ONNX.
        target: the folder to make, in one that there is: ``ensconce-import.json`` and what the engine reads.
        engine: ``openvino`` converts; ``tensorflow`` takes a SavedModel as it is.
        precision: of the arithmetic.
        samples: .npz with one array for each input, or .npy; None for random samples.
        inputs: of a frozen graph, what to feed.
        outputs: of a frozen graph, what to compute.
        tolerance: largest relative difference from the original; None for the precision's own.
        progress: is told how it goes.

    Raises:
        InputError: ``import.*``: what is asked for does not go together, or cannot be converted.
        RefusedError: ``import.tolerance``: the converted model is too far from its original.
    """
    if tolerance is not None and not 0 <= tolerance < math.inf:
        raise InputError("import.options", "this is no tolerance", found=str(tolerance), rule="a number, 0 or more")
    kind = kind_of(source)
    order = Order(
        source=str(source.absolute()),
        kind=kind,
        engine=engine,
        precision=precision,
        samples=None if samples is None else str(samples.absolute()),
        inputs=inputs,
        outputs=outputs,
        tolerance=TOLERANCES[precision] if tolerance is None else tolerance,
        target="",
        work="",
    )
    _check(order)
    target = target.absolute()
    if os.path.lexists(target):
        raise InputError("import.target", f"{target} exists", remedy="name a new folder")
    with _aside(target) as aside:
        version, work = aside / "version", aside / "work"
        version.mkdir()
        work.mkdir()
        order = order.model_copy(update={"target": str(version), "work": str(work)})
        record = _converted(order, aside / "log", progress or (lambda *_: None))
        write_aside(version / IMPORT, record.model_dump_json(indent=1).encode() + b"\n")
        sync_folder(version)
        version.rename(target)
        sync_folder(target.parent)
    return record


def _check(order: Order) -> None:
    """Refuse what does not go together."""

    def refuse(problem: str, remedy: str) -> InputError:
        return InputError("import.options", problem, remedy=remedy)

    if order.engine == "tensorflow":
        if order.kind != "saved-model":
            raise refuse("TensorFlow serves SavedModels alone", "leave --engine tensorflow out")
        if order.precision != "f32" or order.samples is not None:
            raise refuse("a model for TensorFlow is taken as it is", "leave --precision and --samples out")
    if order.kind != "frozen-graph" and (order.inputs or order.outputs):
        raise refuse(
            "only a frozen graph's --inputs and --outputs are chosen", "leave them out: the model names its own"
        )
    if order.precision == "int8" and order.samples is None:
        raise refuse("int8 needs samples to calibrate with", "give --samples FILE")


@contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """A folder beside the target, for its owner alone, that does not outlive the block."""
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.importing-", dir=target.parent))
    except OSError as error:
        raise InputError(
            "import.target",
            f"cannot write {target.parent}: {error.strerror}",
            remedy="name a folder that there is and that can be written",
        ) from error
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _converted(order: Order, log: Path, progress: Progress) -> ImportRecord:
    """Let the other process convert."""
    read, write = os.pipe()
    environment = os.environ | {
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    # A session of its own: Ctrl-C at the terminal reaches this process, which kills that one.
    with open(read) as events, log.open("wb") as output:  # noqa: PTH123  # a descriptor has no path
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-c", _begin(write)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=order.work,
                env=environment,
                pass_fds=[write],
                start_new_session=True,
            )
        finally:
            os.close(write)
        try:
            assert child.stdin is not None
            with child.stdin:
                child.stdin.write(order.model_dump_json().encode())
            record = _listen(events, progress)
            child.wait()
        finally:
            child.kill()
            child.wait()
    _log.info("what the conversion printed:\n%s", _tail(log))
    if record is None:
        raise EnsconceError(
            "import.crashed",
            "the process that converts ended without a result",
            found=f"status {child.returncode}; " + _tail(log).strip().rpartition("\n")[2][:200],
            remedy="try again with `ensconce -v`; the memory may have been too small",
        )
    return record


def _begin(events: int) -> str:
    return f"import os; os.dup2({events}, {_EVENTS}); from ensconce.models.importing.child import main; main()"


def _listen(events: IO[str], progress: Progress) -> ImportRecord | None:
    for line in events:
        event = json.loads(line)
        if "stage" in event:
            progress(event["stage"], event["done"], event["of"])
        elif "error" in event:
            raise restore(event["error"], event["status"])
        elif "record" in event:
            return ImportRecord.model_validate_json(json.dumps(event["record"]))
    return None


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL))
        return file.read().decode(errors="replace")
