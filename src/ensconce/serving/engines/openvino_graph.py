"""One graph in OpenVINO on the CPU: read from memory, compiled, computed by many threads.

Nothing is written: the graph is read from memory, and no cache folder is configured. OpenVINO itself prefers what lies
in the working directory, a file ``.bin`` to the weights that it is given and ``libopenvino_*_plugin.so`` to none; that
folder is the host's, so graphs are read in another, where nobody can put a file.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from ensconce.errors import InputError
from ensconce.models.openvino import import_openvino
from ensconce.tfserving.dtypes import BFLOAT16
from ensconce.tfserving.tensor import Array

__all__ = ["CannotComputeError", "Graph", "Precision"]

Precision = Literal["f32", "bf16"]
Shapes = tuple[tuple[int, ...], ...]

_MOST_SHAPES: Final = 1024
# An inference that takes less is over before a second thread could help: it is computed in the thread that asks. That
# takes a compiled graph with one stream and one thread for each inference that runs at once; a stream more, and
# OpenVINO hands all of them to threads of its own. Pinning would bind the thread that asks to a core.
_QUICK_S: Final = 0.001
_QUICK_SETTINGS: Final = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
# More weights than memory could deliver in that time.
_QUICK_BYTES: Final = 16 * 2**20
# A folder of the kernel's: not even root can put a file there.
_NOWHERE: Final = "/proc"
# The working directory is the process's: of two that go there at once, one would come back to it.
_ELSEWHERE: Final = threading.Lock()
# So much of an input is kept until the next inference.
_KEPT_BYTES: Final = 64 * 1024


class CannotComputeError(Exception):
    """The graph cannot compute with what it was given."""


class Graph:
    """A graph, compiled. Inputs and outputs are known by their position."""

    def __init__(
        self, xml: bytes, weights: bytes | bytearray | memoryview, *, threads: int | None, precision: Precision
    ) -> None:
        """Read and compile; the process's working directory is another one for that moment.

        Args:
            xml: the graph, as ``save_model`` writes it.
            weights: its weights; in a bytearray they are used in place.
            threads: most threads of all inferences at once; the cores that OpenVINO sees when None.
            precision: of the arithmetic (``INFERENCE_PRECISION_HINT``).

        Raises:
            InputError: ``openvino_telemetry`` is installed, OpenVINO is not, or it cannot read or compile the graph.
        """
        self._ov = import_openvino()
        # OpenVINO shares only memory that it could write to; bytes are copied.
        array = np.frombuffer(weights, np.uint8)
        self._weights = array if array.flags.writeable else array.copy()
        try:
            with _ELSEWHERE, contextlib.chdir(_NOWHERE):
                self._core = self._ov.Core()
                self.model = self._core.read_model(xml, self._ov.Tensor(self._weights, shared_memory=True))
        except RuntimeError:
            # OpenVINO's text may quote the model, which is a secret: it goes no further.
            raise InputError(
                "engine.model",
                "OpenVINO cannot read the model",
                found=f"{len(xml)} bytes of XML, {self._weights.size} bytes of weights",
                rule="OpenVINO IR, as its save_model writes it",
                remedy="convert the model again, with the same version of OpenVINO",
            ) from None
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        self._most = threads or os.cpu_count() or 1
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._types = [port.get_element_type() for port in self.model.inputs]
        self._lock = threading.Lock()
        self._pools: dict[Shapes, _Pool] = {}
        single = self._single_shapes()
        quick = None if single is None else self._quick_pool(single)
        self._single = single if quick is not None else None
        self._any = self._fresh(quick)

    def infer(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """Compute all outputs, as arrays of their own; waits for a free inference request.

        Args:
            arrays: one for each input, of its element type.

        Raises:
            CannotComputeError: not with tensors of these shapes, or these values.
        """
        shapes = tuple([array.shape for array in arrays])
        pool = self._pools.get(shapes) or self._admit(shapes)
        tensors = [self._tensor(array, kind) for array, kind in zip(arrays, self._types, strict=True)]
        try:
            return pool.infer(tensors)
        except RuntimeError:
            self._replace(pool)
        pool = self._admit(shapes)
        try:
            return pool.infer(tensors)
        except RuntimeError:
            self._replace(pool)
            raise CannotComputeError from None

    def _tensor(self, array: Array, kind: Any) -> Any:
        if not array.flags.c_contiguous:
            array = array.copy()
        if array.dtype == BFLOAT16:
            return self._ov.Tensor(array.view("<u2"), self._ov.Shape(array.shape), kind)
        # Memory that may not be written to is copied: nothing says that a graph never computes in place.
        return self._ov.Tensor(array, array.flags.writeable)

    def _admit(self, shapes: Shapes) -> _Pool:
        """The pool for inputs of these shapes, once every operation is known to take them.

        That is found out without a compiled graph. An inference that fails half-way leaves shapes behind in one, which
        all requests share, and the next may fail of them although nothing is wrong with it. No client may do that to
        another.
        """
        pool = self._pools.get(shapes)
        if pool is not None:
            return pool
        if self._reshaped(shapes) is None:
            raise CannotComputeError
        with self._lock:
            if len(self._pools) >= _MOST_SHAPES:
                self._pools = {each: pool for each, pool in self._pools.items() if pool is not self._any}
            return self._pools.setdefault(shapes, self._any)

    def _reshaped(self, shapes: Shapes) -> Any:
        """The model for inputs of exactly these shapes; None when it takes none such."""
        trial = self.model.clone()
        try:
            trial.reshape({index: self._ov.PartialShape(list(shape)) for index, shape in enumerate(shapes)})
        except RuntimeError:
            return None
        return trial

    def _single_shapes(self) -> Shapes | None:
        """The shapes of a batch of one, where that leaves nothing open: only first axes are."""
        shapes = []
        for port in self.model.inputs:
            shape = port.get_partial_shape()
            if shape.rank.is_dynamic or any(size.is_dynamic for size in list(shape)[1:]):
                return None
            sizes = [1 if size.is_dynamic else size.get_length() for size in shape]
            shapes.append(tuple(sizes))
        return tuple(shapes)

    def _quick_pool(self, shapes: Shapes) -> _Pool | None:
        """The model for a batch of one, if one thread takes less than ``_QUICK_S`` for it; zeros stand for values."""
        model = self._reshaped(shapes) if self._weights.size <= _QUICK_BYTES else None
        if model is None:
            return None
        pool = self._pool(model, quick=True)
        tensors = [
            self._ov.Tensor(kind, self._ov.Shape(shape)) for kind, shape in zip(self._types, shapes, strict=True)
        ]
        for tensor in tensors:
            tensor.data[...] = 0
        best = _QUICK_S
        for _ in range(4):
            start = time.perf_counter()
            try:
                pool.infer(tensors)
            except RuntimeError:
                return None
            best = min(best, time.perf_counter() - start)
        return pool if best < _QUICK_S else None

    def _fresh(self, single: _Pool | None = None) -> _Pool:
        """Compile for any shapes and, where the model is quick, for a batch of one: that spares a third of the time."""
        dynamic = self.model.is_dynamic()
        if self._single is None:
            self._pools = {}
            return self._pool(self.model, quick=False)
        if single is None:
            single = self._pool(self._reshaped(self._single), quick=True)
        self._pools = {self._single: single}
        return self._pool(self.model, quick=True) if dynamic else single

    def _replace(self, failed: _Pool) -> None:
        """Compile anew what a failure has touched, unless another thread has done so already."""
        with self._lock:
            if failed is self._any or failed in self._pools.values():
                self._any = self._fresh()

    def _pool(self, model: Any, *, quick: bool) -> _Pool:
        if quick:
            return _Pool(lambda: self._compile(model, _QUICK_SETTINGS).create_infer_request(), self._most)
        compiled = self._compile(model, {})
        most = max(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")), self._most)
        return _Pool(compiled.create_infer_request, most)

    def _compile(self, model: Any, settings: Mapping[str, Any]) -> Any:
        try:
            return self._core.compile_model(model, "CPU", {**self._settings, **settings})
        except RuntimeError:
            raise InputError(
                "engine.model",
                "OpenVINO cannot compile the model for the CPU",
                remedy="convert the model again, and try it with OpenVINO outside",
            ) from None


class _Pool:
    """Inference requests for one graph, as many as have been needed at once."""

    def __init__(self, make: Callable[[], Any], most: int) -> None:
        """Make the first of ``most`` requests."""
        self._make = make
        # Each with the inputs that it was made with.
        self._free: queue.SimpleQueue[tuple[Any, list[Any]]] = queue.SimpleQueue()
        self._free.put(self._made())
        # One for each request that may still be made.
        self._more: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(most - 1):
            self._more.put(None)

    def infer(self, tensors: Sequence[Any]) -> Sequence[Array]:
        """Run a free request, a new one, or wait for one; raises RuntimeError when OpenVINO does."""
        request, own = self._take()
        large = [index for index, tensor in enumerate(tensors) if tensor.byte_size > _KEPT_BYTES]
        try:
            for index, tensor in enumerate(tensors):
                request.set_input_tensor(index, tensor)
            # Outputs are copied out, so that the request can serve the next caller; inputs are used where they are.
            outputs: Sequence[Array] = request.infer(share_outputs=False).to_tuple()
            return outputs
        finally:
            # It would hold them until the next time, and nobody would count that.
            for index in large:
                request.set_input_tensor(index, own[index])
            self._free.put((request, own))

    def _made(self) -> tuple[Any, list[Any]]:
        request = self._make()
        return request, list(request.input_tensors)

    def _take(self) -> tuple[Any, list[Any]]:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            pass
        try:
            self._more.get_nowait()
        except queue.Empty:
            return self._free.get()
        try:
            return self._made()
        except BaseException:
            self._more.put(None)
            raise
