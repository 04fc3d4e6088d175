"""The verification report as one page that can be filed: no script, nothing from elsewhere, everything escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ensconce.appraisal.advisories import Advisory, meaning_of
from ensconce.appraisal.policy import Acceptance
from ensconce.client.report import Report, ReportedStep
from ensconce.errors import EnsconceError
from ensconce.markup import Html, page, tag
from ensconce.times import utc_text

__all__ = ["page_of"]

_STYLE = Path(__file__).parent / "report_page.css"
_WORDS = {
    0: "Accepted",
    3: "Refused: the evidence is not genuine, or not its own",
    4: "Refused by the policy",
    5: "Not verified: something could not be reached",
    6: "Refused: a record was changed or is damaged",
}
_REPEAT = """base64 -d replica.quote.b64 > replica.quote
ensconce quote verify replica.quote --collateral collateral.json --at """


def page_of(report: Report) -> str:
    """The page."""
    words, when = _WORDS[report.exit_status], utc_text(report.at)
    title = f"{'SIMULATED ' if report.simulated else ''}Verification report: {report.target}, {words}, {when}"
    said = f"Made by {report.tool} at {when}. A step passed only if the code that judges it came to its end. "
    return page(
        title,
        _STYLE.read_text("utf-8"),
        tag("p", report.warning, class_="simulated") if report.warning else tag(""),
        tag(
            "main",
            tag("h1", "Verification report"),
            _outcome(report, words),
            tag("h2", "What was verified"),
            _definitions(_facts(report)),
            *_refusal(report.error, report.steps),
            *_platform(report.acceptance, report.advisories),
            tag("h2", "The steps"),
            _overview(report.steps),
            tag("h2", "What was compared with what"),
            *(_comparisons(number, each) for number, each in enumerate(report.steps, 1) if each.held or each.error),
            *_ends(report),
            *_evidence(report),
        ),
        tag("footer", tag("p", said, "This page is a record, and proves nothing by itself; the quote in it does.")),
        **({"class_": "is-simulated"} if report.simulated else {}),
    )


def _outcome(report: Report, words: str) -> Html:
    if report.error is not None:
        told = f"{report.error.problem} ({report.error.check}). The replica was sent nothing."
    else:
        assert report.acceptance is not None
        assert report.valid_until is not None
        told = (
            f"This replica is known as {report.acceptance.identity.name}. "
            f"The answer is good until {utc_text(report.valid_until)}, when this ends: {report.ends[0][1]}."
        )
    return tag("div", tag("strong", words), told, class_=f"outcome {report.outcome}")


def _facts(report: Report) -> dict[str, str | Html]:
    policy, publication = report.policy, report.publication
    facts: dict[str, str | Html] = {
        "Address": str(report.target),
        "TLS name": report.server_name,
        "Time of verification": utc_text(report.at),
        "Verified by": report.tool,
        "Policy": tag(
            "",
            f"for {policy.service}, " if policy.service else "",
            f"serial {policy.serial}, SHA-256 ",
            _value(policy.sha256),
        )
        if policy is not None
        else "none: what is published decides, on platforms that are UpToDate",
    }
    if report.root is not None:
        facts["Root" if report.accepted else "Root that is claimed"] = _value(report.root)
    if report.accepted is not None:
        facts["Identity"] = report.accepted.acceptance.identity.name
        facts["Replica"] = _value(report.accepted.replica_id)
        measured = report.accepted.acceptance.report.measurements()
        facts |= {name.upper().replace("_", ""): _value(str(value)) for name, value in measured.items()}
    if publication is not None:
        list_ = publication.measurements
        facts["Published at"] = _value(publication.source)
        facts["Published by"] = _value(publication.publisher)
        facts["Published list"] = f"serial {list_.serial} of {list_.created}, good until {list_.expires}"
    if report.published is not None:
        facts["Published as"] = f"{report.published.name}, first on {report.published.published}"
        if report.published.source is not None:
            facts["Built from"] = _value(str(report.published.source))
    if report.quote is not None:
        facts["Quote, SHA-256"] = _value(hashlib.sha256(report.quote).hexdigest())
    return facts


def _refusal(error: EnsconceError | None, steps: Sequence[ReportedStep]) -> Iterable[Html]:
    if error is None:
        return
    facts: dict[str, str | Html] = {step.state.capitalize(): step.title for step in steps if step.state == "failed"}
    facts |= {"Check": tag("code", error.check), "Problem": error.problem}
    for name, value in (("Found", error.found), ("Rule", error.rule)):
        if value is not None:
            facts[name] = _value(value)
    if error.remedy is not None:
        facts["What to do"] = error.remedy
    yield tag("h2", "Why it was not accepted")
    yield _definitions(facts)


def _platform(acceptance: Acceptance | None, advisories: Sequence[Advisory]) -> Iterable[Html]:
    if acceptance is None:
        return
    status = acceptance.verdict.status
    yield tag("h2", "State of the platform")
    yield tag("p", tag("strong", f"{status}."), " ", meaning_of(status))
    if not advisories:
        yield tag("p", "By its vendor's word no security advisory applies to it.")
        return
    rows = [
        (tag("a", each.id, href=each.url, rel="noreferrer") if each.url else each.id, each.meaning)
        for each in advisories
    ]
    yield _table("Security advisories that apply to it", ("Advisory", "Meaning"), rows)


def _overview(steps: Sequence[ReportedStep]) -> Html:
    rows = [
        tag("tr", tag("td", str(number)), tag("td", step.title), tag("td", step.state, class_=step.state.split()[0]))
        for number, step in enumerate(steps, 1)
    ]
    return tag("table", _head("No.", "Step", "Outcome"), tag("tbody", *rows), class_="overview")


def _comparisons(number: int, step: ReportedStep) -> Html:
    rows: list[Sequence[str]] = [
        (tag("", each.label, " ", tag("code", each.check, class_="check")), _value(each.found), _value(each.rule))
        for each in step.held
    ]
    if step.error is not None:
        error = step.error
        problem = tag("", tag("span", "Failed:", class_="failed"), f" {error.problem} ")
        found, rule = (_value(each) if each is not None else "none" for each in (error.found, error.rule))
        rows.append((tag("", problem, tag("code", error.check, class_="check")), found, rule))
    return tag(
        "section",
        tag("h3", f"{number}. {step.title}: {step.state}"),
        _table(None, ("Compared", "Found", "Rule"), rows, "compared "),
    )


def _ends(report: Report) -> Iterable[Html]:
    if report.accepted is not None:
        yield tag("h2", "Until when the answer is good")
        rows = [(utc_text(end), what) for end, what in report.ends]
        yield _table("The first of these ends it", ("Until", "What ends then"), rows)


def _evidence(report: Report) -> Iterable[Html]:
    yield tag("h2", "The evidence")
    if report.quote is not None and report.collateral is not None:
        yield tag(
            "p",
            "Quote, collateral and time are enough to verify the quote again, without a network. What was about the "
            "connection (name, TLS, freshness) cannot be repeated. Save each block under its name; then:",
        )
        yield tag("pre", _REPEAT, str(report.at), " --root root.pem" if report.root_pem else "")
    elif report.certificate is None:
        yield tag("p", "It did not come to any.")
    for name, text in _exhibits(report).items():
        yield tag("details", tag("summary", name), tag("pre", text))


def _exhibits(report: Report) -> Mapping[str, str]:
    """What was judged, as files that `ensconce quote verify` takes, by their names."""
    exhibits = {
        "replica.quote.b64": _base64(report.quote),
        "fresh.quote.b64": _base64(report.fresh_quote),
        "collateral.json": report.collateral and json.dumps(report.collateral.to_object(), indent=1),
        "root.pem": report.root_pem and report.root_pem.decode(),
        "certificate.der.b64": _base64(report.certificate),
    }
    return {name: text for name, text in exhibits.items() if text}


def _base64(data: bytes | None) -> str | None:
    return None if data is None else "\n".join(textwrap.wrap(base64.b64encode(data).decode(), 76))


def _value(text: str) -> Html:
    return tag("span", text, class_="value")


def _definitions(facts: Mapping[str, str]) -> Html:
    return tag("dl", *(tag("", tag("dt", name), tag("dd", value)) for name, value in facts.items()))


def _head(*columns: str) -> Html:
    return tag("thead", tag("tr", *(tag("th", each, scope="col") for each in columns)))


def _table(caption: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> Html:
    """A table whose rows have their name in the first column; on a narrow screen each row is a block."""
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, data_label=label) for cell, label in zip(row[1:], columns[1:], strict=True)),
        )
        for row in rows
    ]
    told = (tag("caption", caption),) if caption is not None else ()
    return tag("table", *told, _head(*columns), tag("tbody", *body), class_=f"{kind}stacked")
