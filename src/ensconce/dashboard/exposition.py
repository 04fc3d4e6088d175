"""Reads Prometheus' text format (exposition formats, version 0.0.4) of servers that may lie: bounded, and never wrong.

A line that is not a sample is passed over; so is what is beyond the bounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["MAX_PAGE", "Reading", "Where", "parse_metrics"]

MAX_PAGE: Final = 2 * 1024 * 1024
"""Longest page that is read, in bytes."""
_MAX_SAMPLES: Final = 5000
_MAX_LABELS: Final = 8
_MOST: Final = 1e18
_MAX_VALUE: Final = 200

_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]{0,63}="(?:[^"\\\n]|\\[\\"n]){0,400}"'
_NAME: Final = re.compile("[a-zA-Z_:][a-zA-Z0-9_:]{0,127}")
_SAMPLE: Final = re.compile(
    rf"({_NAME.pattern})(?:\{{((?:{_LABEL},?){{0,{_MAX_LABELS}}})\}})?"
    r" +([+-]?(?:Inf|[0-9]{1,20}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?))(?: +[0-9]{1,20})?"
)
_PAIR: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")


Where = Callable[[Mapping[str, str]], bool]
"""Whether a sample with these labels is wanted."""


@dataclass(frozen=True)
class Reading:
    """One page of metrics.

    Attributes:
        samples: by name, then by labels as sorted pairs.
    """

    samples: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)

    def total(self, name: str, where: Where = lambda _: True) -> float | None:
        """The sum of all samples of this name whose labels are wanted; None when there are none."""
        found = [value for labels, value in self.of(name) if where(labels)]
        return sum(found) if found else None

    def of(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        """All samples of this name."""
        for labels, value in self.samples.get(name, {}).items():
            yield dict(labels), value

    def by(self, name: str, label: str, where: Where = lambda _: True) -> dict[str, float]:
        """Sums by the values of one label, of samples whose labels are wanted."""
        sums: dict[str, float] = {}
        for labels, value in self.of(name):
            if where(labels):
                key = labels.get(label, "")
                sums[key] = sums.get(key, 0.0) + value
        return sums


def parse_metrics(page: bytes, wanted: Collection[str], labels: Collection[str]) -> Reading:
    """Read a page.

    Args:
        page: as it came, at most :data:`MAX_PAGE` bytes; what is longer is cut.
        wanted: names; all others are passed over.
        labels: names of the labels that tell samples apart; those that differ in others only are summed.

    Returns:
        At most 5000 sums. Numbers that are not finite, or beyond 1e18, are left out.
    """
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    count = 0
    for line in page[:MAX_PAGE].decode("utf-8", "replace").split("\n"):
        name = _NAME.match(line)
        if name is None or name[0] not in wanted:
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None or "Inf" in match[3]:
            continue
        value = float(match[3])
        if abs(value) > _MOST:
            continue
        pairs = ((label, _unescaped(text)[:_MAX_VALUE]) for label, text in _PAIR.findall(match[2] or ""))
        key = tuple(sorted({label: text for label, text in pairs if label in labels}.items()))
        sums = samples.setdefault(match[1], {})
        if key in sums:
            sums[key] += value
        elif count < _MAX_SAMPLES:
            sums[key] = value
            count += 1
    return Reading(samples)


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text)
