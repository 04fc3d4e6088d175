"""A report as one page to look at: no script, nothing from elsewhere, everything escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensconce.bench.plots import percentile_plot, throughput_plot
from ensconce.bench.report import LATENCIES, PERCENTILES, duration_text, load_text, shapes_text
from ensconce.markup import Html, tag
from ensconce.markup import page as document

__all__ = ["page"]

_STYLE = Path(__file__).parent / "page.css"


def page(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: see :func:`ensconce.bench.report.report`.
    """
    target = found["target"]
    latencies = {name: found[key] for key, name in LATENCIES.items() if found.get(key, {}).get("count")}
    return document(
        f"{target['model']} under load, {found['began']}",
        _STYLE.read_text("utf-8"),
        tag(
            "main",
            tag("h1", f"{target['model']} under load"),
            *(tag("p", f"The generator: {each}", class_="warning") for each in found["generator"]["warnings"]),
            _figures(found),
            tag("div", *_plots(found, latencies), class_="plots"),
            *([tag("h2", "Latency"), _latency_table(latencies), *_notes(found)] if latencies else []),
            *_failures(found),
            *_replicas(found),
            tag("h2", "What was measured"),
            tag("dl", *(part for name, text in _facts(found) for part in (tag("dt", name), tag("dd", text)))),
        ),
        tag("footer", tag("p", f"ensconce {found['ensconce']}, format {found['format']}, {found['began']}")),
    )


def _figures(found: Mapping[str, Any]) -> Html:
    requests, throughput, latency = found["requests"], found["throughput"], found["latency"]
    figures = [(f"{throughput['requests']:.4g}/s", "requests answered")]
    if throughput["rows"] != throughput["requests"]:
        figures.append((f"{throughput['rows']:.4g}/s", "rows"))
    if latency["count"]:
        figures += [(duration_text(latency["p50"]), "median"), (duration_text(latency["p99"]), "99th percentile")]
    figures.append((f"{requests['failed']}", f"of {requests['sent']} failed"))
    return tag("div", *(tag("p", tag("strong", value), text) for value, text in figures), class_="figures")


def _plots(found: Mapping[str, Any], latencies: Mapping[str, Mapping[str, Any]]) -> Iterator[Html]:
    if latencies:
        yield tag("figure", tag("figcaption", "Latency by percentile"), percentile_plot(latencies))
    if found["timeline"]["answered"]:
        plot = throughput_plot(found["timeline"], found["seconds"])
        yield tag("figure", tag("figcaption", "Requests in a second over time"), plot)


def _latency_table(latencies: Mapping[str, Mapping[str, Any]]) -> Html:
    keys = ["min", "mean", *(f"p{each}" for each in PERCENTILES), "max"]
    head = tag("tr", tag("th", "", scope="col"), *(tag("th", name, scope="col") for name in latencies))
    rows = [
        tag("tr", tag("th", key, scope="row"), *(tag("td", duration_text(each[key])) for each in latencies.values()))
        for key in keys
    ]
    return tag("table", tag("thead", head), tag("tbody", *rows))


def _notes(found: Mapping[str, Any]) -> Iterator[Html]:
    if found["load"]["loop"] == "open":
        text = "Latency counts from when a request was due; uncorrected, from when it was sent."
    else:
        interval = duration_text(found["latency_expected_interval"]["interval"])
        text = (
            "Latency counts from when a request was sent. A closed loop sends nothing while it waits: filled in adds "
            f"the requests that would have been sent meanwhile, one each {interval} (the median)."
        )
    yield tag("p", text, class_="note")


def _failures(found: Mapping[str, Any]) -> Iterator[Html]:
    if found["failures"]:
        yield tag("h2", "Failures")
        head = tag("tr", *(tag("th", each, scope="col") for each in ("", "requests", "the first of them")))
        rows = [
            tag("tr", tag("th", each["kind"], scope="row"), tag("td", str(each["count"])), tag("td", each["example"]))
            for each in found["failures"]
        ]
        yield tag("table", tag("thead", head), tag("tbody", *rows), class_="texts")


def _replicas(found: Mapping[str, Any]) -> Iterator[Html]:
    if found["replicas"]:
        yield tag("h2", "Replicas")
        total = sum(found["replicas"].values())
        head = tag("tr", *(tag("th", each, scope="col") for each in ("replica", "answers", "share")))
        rows = [
            tag("tr", tag("th", each, scope="row"), tag("td", str(count)), tag("td", f"{count / total:.1%}"))
            for each, count in sorted(found["replicas"].items())
        ]
        yield tag("table", tag("thead", head), tag("tbody", *rows))


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    target, generator = found["target"], found["generator"]
    yield "Address", ", ".join(target["addresses"])
    yield "Protocol", f"{target['protocol']}, {target['connection']}"
    yield "Version", "the newest" if target["version"] is None else str(target["version"])
    if target["signature"]:
        yield "Signature", target["signature"]
    yield "Load", load_text(found["load"])
    yield "Requests", f"{shapes_text(found)}; {found['batches']} different"
    until = " until it was interrupted," if found["interrupted"] else ""
    yield "Duration", f"{duration_text(found['seconds'])}{until} after {found['load']['warm_up']} requests to warm up"
    yield (
        "The generator took",
        f"{generator['processors']:.2f} processors, its event loop {generator['event_loop']:.0%} of the time",
    )
