"""The page: no string of a stranger's changes what it is made of."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.addresses import Address
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.published import Measurements
from ensconce.appraisal.verdict import TcbStatus
from ensconce.client.published import Publication
from ensconce.client.report import STEPS, Report, ReportedStep
from ensconce.client.report_html import page_of
from ensconce.client.report_text import lines_of
from ensconce.errors import EnsconceError, EvidenceError, IntegrityError, RefusedError, UnreachableError
from ensconce.trail import Held

POLICY = Policy(
    roots=("intel",), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(Identity(name="code", mr_enclave=bytes(32)),)
)

MEASUREMENTS = Measurements(
    service="digits.example.test",
    serial=1,
    created="2026-01-01T00:00:00Z",
    expires="2026-02-01T00:00:00Z",
    enclaves=(),
)


def refused(text: str, error: EnsconceError | None = None) -> Report:
    """A report in which a stranger chose every string that a stranger can choose."""
    error = error or EvidenceError("certificate.name", text, found=text, rule=text, remedy=text)
    steps = [ReportedStep(name=name, state="not reached") for name in list(STEPS)[2:]]
    passed = ReportedStep(name="connection", state="passed", held=(Held("connect.tcp", text, text, text),))
    failed = ReportedStep(name="tls", state="failed", error=error)
    return Report(
        at=1_700_000_000,
        target=Address("127.0.0.1", 1),
        server_name="digits.example.test",
        policy=POLICY,
        steps=(passed, failed, *steps),
        accepted=None,
        error=error,
        certificate=text.encode(errors="replace") or b"x",
        quote=text.encode(errors="replace") or b"x",
        fresh_quote=None,
        collateral=None,
        publication=Publication(text, text, MEASUREMENTS),
        published=None,
    )


class Shape(HTMLParser):
    """Every tag with its attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))


HOSTILE = [
    "</td></table><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">',
    "</style><style>*{display:none}",
    "</pre></details><h1>Accepted</h1>",
    "<!-- ",
    "]]>",
    "&lt;script&gt;",
    "\u202edetpecca",
    "\x00<\x00script>",
    "{{ 7*7 }}{% raw %}",
]


@given(st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=60)))
def test_no_string_breaks_out(text: str) -> None:
    assert Shape(page_of(refused(text))).tags == Shape(page_of(refused("harmless"))).tags


@pytest.mark.parametrize("text", HOSTILE)
def test_no_string_begins_a_line_or_steers_a_terminal(text: str) -> None:
    lines = list(lines_of(refused(f"{text}\n\x1b[2Jaccepted   forged")))
    assert len(lines) == len(list(lines_of(refused("harmless"))))
    assert all(line.isprintable() for line in lines)


def test_there_is_no_script_and_nothing_from_elsewhere() -> None:
    tags = Shape(page_of(refused("x"))).tags
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & {name for name, _ in tags}
    assert not [name for _, attrs in tags for name, _ in attrs if name in ("src", "style") or name.startswith("on")]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (EvidenceError, "not genuine"),
        (RefusedError, "Refused by the policy"),
        (UnreachableError, "Not verified"),
        (IntegrityError, "damaged"),
    ],
)
def test_the_outcome_is_in_words(kind: type[EnsconceError], words: str) -> None:
    report = refused("x", kind("some.check", "a problem"))
    page = page_of(report)
    assert words in page
    assert "some.check" in page
    assert "Accepted" not in page
    assert report.exit_status == kind.exit_status
