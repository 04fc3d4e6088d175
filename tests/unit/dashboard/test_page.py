"""What others say is text on the page, whatever it holds, and bounded."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address
from ensconce.audit.entry import Entry
from ensconce.audit.head import Head
from ensconce.dashboard.exposition import parse_metrics
from ensconce.dashboard.logs import LogSeen
from ensconce.dashboard.page import about
from ensconce.dashboard.replicas import Place, Seen, Version
from ensconce.dashboard.traffic import LABELS, READ
from ensconce.dashboard.watcher import Server, Snapshot, Sources
from ensconce.errors import IntegrityError, RefusedError, UnreachableError

NOW = 1_800_000_000
HOSTILE = '"><script src=//evil.test></script><img src=x onerror=alert(1)>\x1b[2J\u202e' + "A" * 5000
TAGS = {
    *("html", "head", "meta", "title", "link", "script", "body", "a", "header", "h1", "h2", "h3", "p", "span", "main"),
    *("section", "ul", "li", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "div", "footer", "dl"),
    *("dt", "dd", "svg", "path", "polyline"),
}


class Reader(HTMLParser):
    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


def entry(event: str, seq: int = 7, **fields: Any) -> Entry:
    return Entry(seq, f"2026-01-31T12:00:{seq:02}Z", event, fields, bytes(32), bytes(32), bytes(64))


def everything(text: str) -> Snapshot:
    """A round in which everybody says this."""
    place = Place(text, Address("127.0.0.1", 1), text)
    error = RefusedError("policy.mr_enclave", text, found=text, rule=text, remedy=text)
    head = Head(9, bytes(32), bytes(32), "2026-01-31T12:00:00Z", "0" * 64, bytes(64))
    metrics = parse_metrics(f'ensconce_provisioning_refusals_total{{check="{text[:30]}"}} 4\n'.encode(), READ, LABELS)
    return Snapshot(
        at=NOW,
        seen=(Seen(place=place, error=error, versions=(Version(text, text, text, text),)),),
        servers=(Server(text, UnreachableError("dashboard.source", text), metrics),),
        heads=LogSeen(head, 3, IntegrityError("audit.fork", text), error),
        log=LogSeen(head),
        events=(
            entry("key.refused", peer=text, check=text, problem=text, found=text, identity=text, key_id=text),
            entry("key.released", peer=text, key_ids=(text,) * 50, identity=text, tcb_status=text, root=text),
        ),
        error=error,
    )


@given(st.text(max_size=60) | st.just(HOSTILE))
def test_what_others_say_is_text(text: str) -> None:
    # What is in them does not matter here, only that they are there.
    page = Reader(about("digits", everything(text), Sources(replicas=None, entries=None), NOW))
    assert page.tags <= TAGS
    assert not any(name.startswith("on") or name == "style" for name in page.names)
    assert len(page.ids) == len(set(page.ids))


def test_what_others_say_is_cut_and_steers_nothing() -> None:
    page = about("digits", everything(HOSTILE), Sources(), NOW)
    assert len(page) < 100_000
    assert b"<script src=//evil" not in page
    assert "\x1b" not in page.decode()
    assert "\u202e" not in page.decode()


def test_before_the_first_look_it_says_so() -> None:
    page = Reader(about("digits", Snapshot(), Sources(), NOW))
    assert "Nothing was looked at yet." in page.text
    assert "Simulated" not in page.text


def test_an_old_look_is_called_stale() -> None:
    assert "Stale" in Reader(about("digits", Snapshot(at=NOW - 60), Sources(), NOW)).text


@pytest.mark.parametrize(("root", "shown"), [("simulated:" + "0" * 64, True), ("intel", False)])
def test_a_simulated_platform_is_announced(root: str, shown: bool) -> None:
    snapshot = Snapshot(at=NOW, events=(entry("key.released", root=root),))
    page = about("digits", snapshot, Sources(), NOW)
    assert (b"<title>SIMULATED" in page) is shown
    assert ("No hardware protects" in Reader(page).text) is shown


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (LogSeen(), "Not seen"),
        (LogSeen(bent=IntegrityError("audit.fork", "two logs")), "Bent"),
        (LogSeen(Head(1, b"", b"", "", "", b""), error=UnreachableError("audit.source", "away")), "Not reached"),
        (LogSeen(Head(1, b"", b"", "", "", b"")), "Good"),
        (LogSeen(Head(1, b"", b"", "", "", b""), checks=1), "Consistent"),
    ],
)
def test_the_light_has_a_word(seen: LogSeen, word: str) -> None:
    assert word in Reader(about("digits", Snapshot(at=NOW, heads=seen), Sources(), NOW)).text


def test_refusals_that_repeat_are_told_once() -> None:
    why = {"check": "policy.debug", "problem": "a debug enclave"}
    events = (
        *(entry("key.refused", seq, peer=f"192.0.2.1:{seq}", **why) for seq in range(30, 10, -1)),
        entry("key.refused", 10, peer="192.0.2.2:5", **why),
        entry("key.refused", 9, peer="192.0.2.2:5", **why | {"found": "x"}),
    )
    text = Reader(about("digits", Snapshot(at=NOW, events=events), Sources(entries=cast("Any", 1)), NOW)).text
    assert "11 to 30" in text
    assert "20 times since 2026-01-31T12:00:11Z" in text
    assert text.count("a debug enclave") == 3
    released = tuple(entry("key.released", seq, identity="server") for seq in (8, 7))
    page = Reader(about("digits", Snapshot(at=NOW, events=released), Sources(entries=cast("Any", 1)), NOW))
    assert page.text.count("Released") == 2


GOOD = LogSeen(Head(1, b"", b"", "", "", b""), checks=1)
BENT = LogSeen(bent=IntegrityError("audit.fork", "two logs"))


@pytest.mark.parametrize(("heads", "log"), [(GOOD, BENT), (BENT, GOOD)])
def test_at_a_glance_the_worse_of_both_lights_counts(heads: LogSeen, log: LogSeen) -> None:
    page = about("digits", Snapshot(at=NOW, heads=heads, log=log), Sources(), NOW).decode()
    assert 'class="tile bad" data-say="Audit log: Bent"' in page


def test_a_clock_that_was_set_back_makes_what_is_shown_stale() -> None:
    assert "Stale" in Reader(about("digits", Snapshot(at=NOW + 3600), Sources(), NOW)).text


def test_without_the_owners_log_there_are_counts_and_a_word_on_why() -> None:
    metrics = parse_metrics(b'ensconce_provisioning_refusals_total{check="policy.debug",wire="v2"} 4\n', READ, LABELS)
    snapshot = Snapshot(at=NOW, servers=(Server("http://127.0.0.1:1", None, metrics),))
    text = Reader(about("digits", snapshot, Sources(), NOW)).text
    assert "give --owner" in text
    assert "policy.debug" in text
