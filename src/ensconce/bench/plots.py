"""Two plots as SVG, for a page without script; colours are classes of the page's style."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ensconce.bench.report import duration_text
from ensconce.markup import Html, tag

__all__ = ["percentile_plot", "throughput_plot"]

_WIDTH, _HEIGHT = 480, 284
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 446, 34, 256
_TICKS: Final = 6

Series = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


def percentile_plot(curves: Mapping[str, Mapping[str, Any]]) -> Html:
    """Latency by percentile, the rarer the wider: 90, 99, 99.9 are evenly spaced, as in HdrHistogram's plots.

    Args:
        curves: latencies of a report, by what they are called; at least one, and none of them empty.
    """
    lines = {name: _cumulated(each["histogram"]) for name, each in curves.items()}
    values = [value for line in lines.values() for _, value in line]
    rarest = max(1.0, *(rank for line in lines.values() for rank, _ in line))
    low, high = max(min(values), 1e-7), max(max(values), 2e-7)
    bottom, top = math.log10(low / 1.2), math.log10(high * 1.2)
    x = _scale(0, rarest, _LEFT, _RIGHT)
    log = _scale(bottom, top, _BOTTOM, _TOP)

    def y(value: float) -> float:
        return log(math.log10(max(value, low)))

    rows = [(y(value), _tick(value)) for value in _decades(low / 1.2, high * 1.2)]
    columns = [(x(rank), f"{100 * (1 - 10**-rank):.12g} %") for rank in range(math.floor(rarest) + 1)]
    columns[0] = (x(0), "0 %")
    if rarest < 1.6:
        columns.append((x(math.log10(2)), "50 %"))
    drawn = [
        tag("polyline", points=_points(_thinned(line, x), x, y), class_=f"line series{number}")
        for number, line in enumerate(lines.values())
    ]
    label = "Latency by percentile: " + "; ".join(
        f"{name}: median {duration_text(each['p50'])}, p99 {duration_text(each['p99'])}, "
        f"longest {duration_text(each['max'])}"
        for name, each in curves.items()
    )
    return _plot(label, rows, columns, [*drawn, *_legend(list(lines))])


def throughput_plot(timeline: Mapping[str, Any], seconds: float) -> Html:
    """Answers and failures in a second, over time.

    Args:
        timeline: of a report.
        seconds: how long it took; the last period may be shorter than the others.
    """
    period, answered, failed = timeline["period"], timeline["answered"], timeline["failed"]
    rates = {"answered": _rates(answered, period, seconds)}
    if any(failed):
        rates["failed"] = _rates(failed, period, seconds)
    end = max(seconds, 1e-9)
    most = max(1e-9, *(rate for each in rates.values() for _, rate in each))
    x, y = _scale(0, end, _LEFT, _RIGHT), _scale(0, most * 1.05, _BOTTOM, _TOP)
    rows = [(y(value), f"{value / 1000:g}k/s" if value >= 10_000 else f"{value:g}/s") for value in _round_steps(most)]
    columns = [(x(value), f"{value:g} s") for value in _round_steps(end)]
    drawn = [
        tag("polyline", points=_points(_stairs(each, end), x, y), class_=f"line {name}") for name, each in rates.items()
    ]
    label = f"Requests in a second over time: at most {most:.4g} answered or failed"
    legend = _legend(list(rates), list(rates)) if len(rates) > 1 else []
    return _plot(label, rows, columns, [*drawn, *legend])


def _plot(
    label: str, rows: Iterable[tuple[float, str]], columns: Iterable[tuple[float, str]], inside: list[Html]
) -> Html:
    grid = []
    for at, text in rows:
        grid.append(_line(_LEFT, at, _RIGHT, at))
        grid.append(tag("text", text, x=f"{_LEFT - 6}", y=f"{at + 4:.1f}", text_anchor="end"))
    for at, text in columns:
        grid.append(_line(at, _TOP, at, _BOTTOM))
        grid.append(tag("text", text, x=f"{at:.1f}", y=f"{_BOTTOM + 18}", text_anchor="middle"))
    return tag("svg", *grid, *inside, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str = "grid") -> Html:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=class_)


def _legend(names: Sequence[str], classes: Sequence[str] | None = None) -> list[Html]:
    if len(names) < 2:
        return []
    drawn = []
    for number, name in enumerate(names):
        at = _LEFT + number * (_RIGHT - _LEFT) / 2
        drawn.append(_line(at, 18, at + 26, 18, f"line {classes[number] if classes else f'series{number}'}"))
        drawn.append(tag("text", name, x=f"{at + 32:.1f}", y="22"))
    return drawn


def _cumulated(histogram: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """How rare (0 for all, 1 for one in ten, 2 for one in a hundred) a latency longer than each is."""
    total, seen, found = sum(count for _, count in histogram), 0, []
    for value, count in histogram:
        # Beyond this one lies nothing, as far as so many can tell: half a request.
        found.append((-math.log10(max(1 - seen / total, 0.5 / total)), value))
        seen += count
    found.append((math.log10(2 * total), histogram[-1][0]))
    return found


def _thinned(line: Series, x: Scale) -> list[tuple[float, float]]:
    """No more points than the eye can tell apart; the ends stay."""
    kept: list[tuple[float, float]] = []
    for point in line:
        if kept and point is not line[-1] and x(point[0]) - x(kept[-1][0]) < 0.7:
            continue
        kept.append(point)
    return kept


def _rates(counts: Sequence[int], period: float, seconds: float) -> list[tuple[float, float]]:
    """When each period begins, and its rate; a short last one is a part of the one before."""
    whole = list(counts)
    if len(whole) > 1 and seconds - (len(whole) - 1) * period < period / 2:
        last = whole.pop()
        whole[-1] += last
    begins = [number * period for number in range(len(whole))]
    ends = [*begins[1:], max(seconds, begins[-1] + period / 4)]
    return [(begin, count / (end - begin)) for begin, end, count in zip(begins, ends, whole, strict=True)]


def _stairs(rates: Series, end: float) -> list[tuple[float, float]]:
    ends = [*(begin for begin, _ in rates[1:]), end]
    return [(at, rate) for (begin, rate), until in zip(rates, ends, strict=True) for at in (begin, until)]


def _scale(low: float, high: float, first: float, last: float) -> Scale:
    slope = (last - first) / (high - low)
    return lambda value: first + (value - low) * slope


def _points(line: Series, x: Scale, y: Scale) -> str:
    return " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)


def _tick(seconds: float) -> str:
    unit, size = next(
        ((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= 0.999 * size), ("us", 1e-6)
    )
    return f"{seconds / size:.3g} {unit}"


def _decades(low: float, high: float) -> list[float]:
    """1, 2, 5 of each power of ten between; only the powers where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= _TICKS + 2:
            return found or [low]
    return found[:: math.ceil(len(found) / _TICKS)]


def _round_steps(most: float) -> list[float]:
    """From 0 to at most ``most``, in steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(most / _TICKS))
    step = next(digit * power for digit in (1, 2, 5, 10) if most / (digit * power) <= _TICKS)
    return [float(f"{number * step:.12g}") for number in range(math.floor(most / step + 1e-9) + 1)]
