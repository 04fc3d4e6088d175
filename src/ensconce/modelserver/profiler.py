"""TensorFlow's profiler service, for the profiler's own client and TensorBoard: a trace of what is computed meanwhile.

A trace tells names and times of operations and no tensors. Nobody asks who wants one, as in the original; so it is for
the plain model server alone.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from ensconce.serving.grpc.call import Message, Note, Unary
from ensconce.serving.grpc.messages import parse
from ensconce.tfserving.messages import ProfileRequest, ProfileResponse
from ensconce.tfserving.refusal import Code, RequestError, invalid

__all__ = ["PROFILER_SERVICE", "profiler_methods"]

PROFILER_SERVICE: Final = "tensorflow.ProfilerService"
_MOST_MS: Final = 60_000
_MOST: Final = 10_000
"""Options and names of a request."""


def profiler_methods() -> dict[str, Unary]:
    """The service's methods; to be made in the event loop that serves."""
    busy = asyncio.Lock()

    async def profile(data: Message, _note: Note) -> bytes:
        request = parse(ProfileRequest, data, most=_MOST)
        if not 0 < request.duration_ms <= _MOST_MS:
            raise invalid(f"duration_ms is {request.duration_ms}, at most {_MOST_MS} are traced")
        if "tensorflow" not in sys.modules:
            raise RequestError(Code.FAILED_PRECONDITION, "No model is computed by TensorFlow")
        if busy.locked():
            raise RequestError(Code.ALREADY_EXISTS, "Another trace is being made")
        async with busy:
            trace = await _trace(request.duration_ms / 1000)
        response = ProfileResponse(empty_trace=not trace)
        if trace:
            response.xspace.MergeFromString(trace)
        serialized: bytes = response.SerializeToString()
        return serialized

    return {"Profile": Unary(profile)}


async def _trace(seconds: float) -> bytes:
    profiler: Any = sys.modules["tensorflow"].profiler.experimental
    with tempfile.TemporaryDirectory(prefix="profile.") as folder:
        await asyncio.to_thread(profiler.start, folder)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(profiler.stop)
        return b"".join(path.read_bytes() for path in sorted(Path(folder).rglob("*.xplane.pb")))
