"""What is counted while requests are sent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ensconce.bench.histogram import Histogram
from ensconce.bench.timeline import Timeline

__all__ = ["AnswerError", "Tally"]

_MOST_KINDS: Final = 64
_OTHERS: Final = "others"


class AnswerError(Exception):
    """One request was not answered as it should have been.

    Attributes:
        kind: what it is counted under, such as ``grpc UNAVAILABLE`` or ``http 503``.
        text: what was said, for one example of the kind.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


@dataclass
class Tally:
    """Counts.

    Attributes:
        latency: of what was answered, from when it was due: in a closed loop when it was sent.
        service: likewise, from when it was sent.
        lateness: how long after it was due each request was sent.
        timeline: answers and failures over time.
        failures: by kind, at most 64 of them.
        examples: what was said the first time, by kind.
        replicas: answers by the id of the replica that proved to have given them.
        sent: requests.
        answered: of these.
    """

    latency: Histogram = field(default_factory=Histogram)
    service: Histogram = field(default_factory=Histogram)
    lateness: Histogram = field(default_factory=Histogram)
    timeline: Timeline = field(default_factory=Timeline)
    failures: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    replicas: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    answered: int = 0

    @property
    def failed(self) -> int:
        """How many failed."""
        return self.failures.total()

    def send(self, due: float, sent: float) -> None:
        """A request goes out; both times in seconds on one clock."""
        self.sent += 1
        self.lateness.add(_nanoseconds(sent - due))

    def answer(self, due: float, sent: float, now: float, begin: float, replica_id: str | None) -> None:
        """It was answered."""
        self.answered += 1
        self.latency.add(_nanoseconds(now - due))
        self.service.add(_nanoseconds(now - sent))
        self.timeline.add(now - begin, failed=False)
        if replica_id:
            self.replicas[replica_id] += 1

    def fail(self, failure: AnswerError, now: float, begin: float) -> None:
        """It was not."""
        kind = failure.kind[:80]
        if kind not in self.failures and len(self.failures) >= _MOST_KINDS:
            kind = _OTHERS
        self.failures[kind] += 1
        self.examples.setdefault(kind, failure.text[:300])
        self.timeline.add(now - begin, failed=True)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
