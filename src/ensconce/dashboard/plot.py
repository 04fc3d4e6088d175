"""Plots of values over time as SVG, drawn without script; what a plot shows is also said in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ensconce.dashboard.history import Series
from ensconce.markup import Html, tag

__all__ = ["Line", "duration", "number", "plot"]

_WIDTH: Final = 600.0
_HEIGHT: Final = 120.0


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        name: in the legend.
        values: at times, in their order.
    """

    name: str
    values: Series


def number(value: float) -> str:
    """A number as a reader wants it: at most three digits that say something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "0 s"


def plot(title: str, lines: Sequence[Line], say: Callable[[float], str], absent: str) -> Html:
    """A figure: heading, picture, and a caption that says the last and the highest value of each line.

    Args:
        title: of the figure.
        lines: at most three, told apart by dashes as well as by colour.
        say: writes a value with its unit.
        absent: what is said where there is no value.
    """
    values = [value for line in lines for _, value in line.values if value is not None]
    heading = tag("h3", title)
    if not values:
        return tag("div", heading, tag("p", absent, class_="faint"), class_="plot")
    top = max(values) or 1.0
    times = [at for line in lines for at, _ in line.values]
    first, last = min(times), max(times)
    across = (last - first) or 1.0
    drawn = [
        tag("polyline", points=_points(part, first, across, top), class_=f"line line{index}")
        for index, line in enumerate(lines)
        for part in _parts(line.values)
    ]
    grid = [tag("path", d=f"M0 {y:g}H{_WIDTH:g}", class_="grid") for y in (1.0, _HEIGHT / 2, _HEIGHT - 1)]
    words = [_words(line, say) for line in lines]
    picture = tag(
        "svg",
        *grid,
        *drawn,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{title}: {'; '.join(words)}",
    )
    legend = tag("ul", *(_key(index, text) for index, text in enumerate(words)), class_="legend")
    axes = tag(
        "p",
        tag("span", f"0 to {say(top)}"),
        tag("span", f"last {duration(across)}" if across < 120 else f"last {across / 60:.0f} min"),
        class_="axes",
        aria_hidden="true",
    )
    return tag("div", heading, picture, axes, legend, class_="plot")


def _words(line: Line, say: Callable[[float], str]) -> str:
    values = [value for _, value in line.values if value is not None]
    if not values:
        return f"{line.name}: none"
    latest = line.values[-1][1]
    now = "none now" if latest is None else f"{say(latest)} now"
    return f"{line.name}: {now}, {say(max(values))} at most"


def _key(index: int, text: str) -> Html:
    sample = tag(
        "svg",
        tag("path", d="M0 4H24", class_=f"line line{index}"),
        viewBox="0 0 24 8",
        aria_hidden="true",
        class_="key",
    )
    return tag("li", sample, tag("span", text))


def _parts(values: Series) -> list[list[tuple[float, float]]]:
    """Where there is a value, without gaps."""
    parts: list[list[tuple[float, float]]] = [[]]
    for at, value in values:
        if value is not None:
            parts[-1].append((at, value))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _points(part: Sequence[tuple[float, float]], first: float, across: float, top: float) -> str:
    spots = [((at - first) / across * _WIDTH, _HEIGHT - 1 - value / top * (_HEIGHT - 2)) for at, value in part]
    if len(spots) == 1:  # a line of one point shows nothing
        spots.append((spots[0][0] + 2, spots[0][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
