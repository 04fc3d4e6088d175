"""Python's garbage collector, told what it need not look at."""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["set_aside"]

_YOUNG: Final = 20_000


def set_aside() -> None:
    """Keep the collector from all that is here by now; to be called once, when what serves is imported.

    A full collection looks at every object, and imports leave 50,000 behind. Reading one JSON image of a megabyte,
    which are 50,000 lists, brought about half such a collection: it took twice as long as it had to. They are not 70
    occasions to look at what is young, either, but three.

    What is set aside and ends up in a cycle stays for ever. OpenVINO's models end without the collector; TensorFlow's
    do not, and must not be loaded yet.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
