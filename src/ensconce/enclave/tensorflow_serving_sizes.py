"""How large an enclave with TensorFlow Serving must be, and how many threads it may have; derived, with the reasons."""

from __future__ import annotations

from dataclasses import dataclass

from ensconce.enclave.sizes import GRAMINES_THREADS, MAX_CORES, EnclaveSize, mib, power_of_two

__all__ = ["HEAPS", "ServingSizes"]

HEAPS = 4
"""Heaps that the C library may have; it would make as many as 8 for each core, and set 64 MiB aside for each."""

_MIB = 1 << 20
_HEAP = 64 * _MIB
# The main thread, the manager's, the loaders', the file system's, gRPC's pollers and timers.
_SERVERS_THREADS = 28
_STACK = 4 * _MIB
# The library OS, TensorFlow's own tables and what oneDNN compiles; protocol buffers of requests and answers.
_PROGRAM = 768 * _MIB
_UNKNOWN_MODEL = 512 * _MIB


@dataclass(frozen=True)
class ServingSizes(EnclaveSize):
    """Of an enclave with TensorFlow Serving.

    Attributes:
        cores: threads of each of TensorFlow's two pools.
        grpc_threads: most threads that handle messages.
        stack: bytes of each thread's stack.
    """

    cores: int
    grpc_threads: int
    stack: int

    @classmethod
    def of(cls, *, program: int, model: int | None, threads: int, batch_threads: int | None) -> ServingSizes:
        """What an enclave needs.

        Args:
            program: bytes of the program and its libraries.
            model: bytes of the version that it serves; None when they are not known yet.
            threads: of each of TensorFlow's pools; 0 for as many as the host may have cores.
            batch_threads: threads that execute batches; None when nothing is batched.
        """
        cores = threads or MAX_CORES
        batching = batch_threads or 0
        slots = GRAMINES_THREADS + _SERVERS_THREADS + 2 * cores + 2 * cores + batching
        weights = _UNKNOWN_MODEL if model is None else model
        # The graph as it is read, its variables, and what oneDNN makes of the constants.
        for_model = 3 * weights
        needed = _PROGRAM + program + for_model + slots * _STACK + HEAPS * _HEAP
        return cls(
            cores=cores,
            grpc_threads=2 * cores,
            threads=slots,
            stack=_STACK,
            size=power_of_two(needed),
            threads_reason=f"{GRAMINES_THREADS} of Gramine's, {_SERVERS_THREADS} of the server's, {cores} in each of"
            f" TensorFlow's two pools, {2 * cores} for gRPC" + (f", {batching} for batches" if batching else ""),
            size_reason=f"{mib(_PROGRAM + program)} for the program, {mib(for_model)} for the model (the file, its"
            f" variables, and what is made of them), {mib(slots * _STACK)} for stacks,"
            f" {mib(HEAPS * _HEAP)} for {HEAPS} heaps; rounded up to a power of two",
        )
