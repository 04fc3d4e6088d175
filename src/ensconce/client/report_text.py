"""The verification report as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from ensconce.appraisal.advisories import meaning_of
from ensconce.client.report import Report
from ensconce.errors import printable
from ensconce.evidence.report import SgxReport
from ensconce.times import utc_text
from ensconce.trail import Held

__all__ = ["lines_of"]

_MARKS = {"passed": "ok  ", "failed": "FAIL", "not reached": "--  ", "not asked": "--  "}


def lines_of(report: Report) -> Iterator[str]:
    """The lines; what is in them may be a stranger's, but begins no line of its own."""
    if report.warning is not None:
        yield report.warning
    yield f"{report.tool}, {utc_text(report.at)}: {report.target}, name {report.server_name}"
    if report.policy is not None:
        yield f"policy {report.policy.sha256}, serial {report.policy.serial}"
    else:
        yield "policy none: what is published decides, on platforms that are UpToDate"
    for step in report.steps:
        state = f" ({step.state})" if step.state.startswith("not ") else ""
        yield f"{_MARKS[step.state]}  {step.title}{state}"
        for held in step.held:
            yield printable(f"        {_line(held)}")
        if step.error is not None:
            yield printable(f"        {step.error}")
    acceptance = report.acceptance
    if report.accepted is not None and acceptance is not None:
        verdict = acceptance.verdict
        yield f"accepted   {acceptance.identity.name} (replica {report.accepted.replica_id})"
        if isinstance(verdict.report, SgxReport):
            yield f"mr_enclave {verdict.report.mr_enclave.hex()}"
        else:
            yield f"mr_td      {verdict.report.mr_td.hex()}"
        if report.publication is not None:
            list_ = report.publication.measurements
            yield printable(
                f"published  {report.publication.source}: serial {list_.serial}, {report.publication.publisher}"
            )
        if report.published is not None and report.published.source is not None:
            yield printable(f"built from {report.published.source}")
        yield f"root       {verdict.root}"
        yield f"TCB status {verdict.status}: {meaning_of(verdict.status)}"
        for advisory in report.advisories:
            yield printable(f"advisory   {advisory.id}: {advisory.meaning} {advisory.url or ''}".rstrip())
        yield printable(f"until      {utc_text(report.valid_until or 0)}: {report.ends[0][1]}")
    else:
        yield f"{report.outcome}: nothing was sent"
    if report.warning is not None:
        yield report.warning


def _line(held: Held) -> str:
    same = "" if held.rule == held.found else f"; rule: {held.rule}"
    return f"{held.label}: {held.found}{same}"
