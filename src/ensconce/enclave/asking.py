"""Asking the owner until she answers: who hears nothing asks again, in the same enclave; a refusal stands.

For how long is for whoever watches the replica to say, and to end it: kubelet by its startup probe, people by SIGTERM.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from ensconce.enclave.telling import UNANSWERED, tell
from ensconce.errors import UnreachableError

__all__ = ["until_answered"]

_FIRST_S, _LONGEST_S = 1.0, 30.0
_CHANCE = random.SystemRandom()

T = TypeVar("T")


def until_answered(
    ask: Callable[[], T], *, chance: random.Random = _CHANCE, sleep: Callable[[float], object] = time.sleep
) -> T:
    """What ``ask`` returns, once it does; each silence is told.

    The pauses grow from a second to half a minute, each longer or shorter by up to a half, so that a fleet that began
    together does not come back together.

    Args:
        ask: asks once, of every server.
        chance: lengthens pauses.
        sleep: waits for seconds; a signal's exception ends it.

    Raises:
        EnsconceError: as ``ask``, but for UnreachableError.
    """
    pause = _FIRST_S
    while True:
        try:
            return ask()
        except UnreachableError as error:
            wait = pause * chance.uniform(0.5, 1.5)
            tell(UNANSWERED, **error.fields(), again_in=round(wait, 1))
        sleep(wait)
        pause = min(2 * pause, _LONGEST_S)
