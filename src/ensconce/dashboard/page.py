"""The page, from one round. What others said becomes text in it (:mod:`ensconce.markup`), cut to a length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Final

from ensconce.audit.entry import Entry
from ensconce.dashboard.elements import cut, document, faint, mark, moment, pairs, problem, section, span, table
from ensconce.dashboard.logs import LogSeen
from ensconce.dashboard.plot import Line, duration, number, plot
from ensconce.dashboard.replicas import Seen
from ensconce.dashboard.traffic import ANSWERED, REFUSALS, RELEASES, SERVER_FIELDS, of_models
from ensconce.dashboard.watcher import EVERY_S, Server, Snapshot, Sources
from ensconce.evidence.report import SgxReport
from ensconce.markup import Html, tag
from ensconce.ratls.authority import BACKDATE
from ensconce.times import utc_text

__all__ = ["about"]

_STALE_S: Final = 6 * EVERY_S
_SOON_S: Final = 3600
_SHOWN_EVENTS: Final = 30
_WORST_FIRST: Final = ("bad", "warn", "good")
_FIRST: Final = "First to expire"
_WHY: Final = ("found", "rule", "remedy")


def about(name: str, snapshot: Snapshot, sources: Sources, now: int) -> bytes:
    """The page about a deployment.

    Args:
        name: of the service.
        snapshot: the last round.
        sources: what is looked at.
        now: seconds since 1970.
    """
    simulated = _is_simulated(snapshot, sources)
    parts = [
        _summary(snapshot, sources, now),
        _replicas(snapshot, sources, now),
        _models(snapshot),
        _plots(snapshot),
        _keys(snapshot, sources),
        _log(snapshot),
        _servers(snapshot.servers),
    ]
    banner = (
        []
        if not simulated
        else [
            tag(
                "p",
                tag("strong", "Simulated platform. "),
                "No hardware protects these enclaves: whoever has their machine can read everything in them.",
                class_="simulated",
                role="note",
            )
        ]
    )
    body = [
        tag("a", "Skip to content", href="#main", class_="skip"),
        tag("header", *banner, tag("h1", name), _age(snapshot, now)),
        tag("main", *parts, id="main", tabindex="-1"),
        tag("footer", tag("p", "Ensconce dashboard. It reads, and changes nothing. All times are UTC.")),
    ]
    return document(f"{'SIMULATED · ' if simulated else ''}{name} · Ensconce", *body, with_script=True)


def _is_simulated(snapshot: Snapshot, sources: Sources) -> bool:
    roots = list(sources.replicas.service.appraiser.policy.roots) if sources.replicas is not None else []
    roots += [each.accepted.acceptance.verdict.root for each in snapshot.seen if each.accepted is not None]
    roots += [str(entry.fields["root"]) for entry in snapshot.events if "root" in entry.fields]
    return any(root != "intel" for root in roots)


def _age(snapshot: Snapshot, now: int) -> Html:
    if not snapshot.at:
        text, fresh = "Nothing was looked at yet.", True
    elif fresh := abs(now - snapshot.at) <= _STALE_S:
        text = f"As of {utc_text(snapshot.at)}."
    else:
        text = f"Stale: the last whole look was at {utc_text(snapshot.at)}."
    return tag(
        "p",
        tag("span", text, id="age", class_="" if fresh else "mark warn"),
        " ",
        tag("a", "Refresh", href="/", id="refresh"),
        class_="age",
    )


def _summary(snapshot: Snapshot, sources: Sources, now: int) -> Html:
    tiles: list[tuple[str, str, str]] = []
    if sources.replicas is not None:
        accepted = sum(each.accepted is not None for each in snapshot.seen)
        fine = bool(snapshot.seen) and accepted == len(snapshot.seen)
        tiles.append(("Replicas", f"{accepted} of {len(snapshot.seen)} accepted", "good" if fine else "bad"))
        ends = [each.accepted.valid_until for each in snapshot.seen if each.accepted is not None]
        if ends:
            left = min(ends) - now
            tiles.append((_FIRST, f"in {span(left)}", "good" if left > _SOON_S else "warn"))
    for what, metric in (("Keys released", RELEASES), ("Keys refused", REFUSALS)):
        counts = [each.reading.total(metric) for each in snapshot.servers if each.reading]
        if counts:
            tiles.append((what, f"{number(sum(each or 0.0 for each in counts))} times", "plain"))
    lights = [_light(seen)[:2] for seen in (snapshot.heads, snapshot.log) if seen is not None]
    if lights:
        light, word = min(lights, key=lambda each: _WORST_FIRST.index(each[0]))
        tiles.append(("Audit log", word, light))
    items = [
        tag(
            "li",
            tag("span", what, class_="what"),
            tag("strong", says),
            class_=f"tile {light}",
            # What is told aloud when it changes: no time that passes.
            **({} if light in ("good", "plain") else {"data_say": f"{what}: {'soon' if what == _FIRST else says}"}),
        )
        for what, says, light in tiles
    ]
    return section("summary", "At a glance", tag("ul", *items, class_="tiles", role="list"))


def _replicas(snapshot: Snapshot, sources: Sources, now: int) -> Html:
    if sources.replicas is None:
        return section("replicas", "Replicas", faint("No replicas were named: give their addresses, or --host."))
    content: list[Html] = []
    if snapshot.error is not None:
        content.append(problem(snapshot.error))
    if snapshot.seen:
        content.append(
            table(
                "Each was judged by this dashboard, as a client, on a connection of its own.",
                ("Replica", "Verdict", "Measurement", "Platform", "Certificate until", "Accepted until", "Answered"),
                [_replica(each, snapshot.seen, now) for each in snapshot.seen],
            )
        )
    elif snapshot.at:
        content.append(faint("There are none."))
    return section("replicas", "Replicas", *content)


def _replica(seen: Seen, others: Sequence[Seen], now: int) -> list[Html | str]:
    place = seen.place
    where = tag("", cut(place.name), *([tag("span", cut(place.state), class_="sub")] if place.state else []))
    if seen.accepted is None:
        assert seen.error is not None
        verdict = "Unreachable" if seen.error.exit_status == 5 else "Refused"
        return [where, tag("", mark("bad", verdict), problem(seen.error)), "", "", "", "", ""]
    accepted = seen.accepted
    judged = accepted.acceptance.verdict
    same = [
        other for other in others if other.accepted is not None and other.accepted.replica_id == accepted.replica_id
    ]
    key = f"key {accepted.replica_id}" + (f", reached at {len(same)} addresses" if len(same) > 1 else "")
    report = accepted.acceptance.report
    measurement = report.mr_enclave.hex() if isinstance(report, SgxReport) else str(report.measurements())
    begin = accepted.certificate.not_valid_before_utc.timestamp() + BACKDATE
    end = accepted.certificate.not_valid_after_utc.timestamp()
    requests = seen.reading.total(ANSWERED, of_models) if seen.reading is not None else None
    return [
        tag("", where, tag("span", key, class_="sub mono")),
        tag("", mark("good", "Accepted"), tag("span", f"as {accepted.acceptance.identity.name}", class_="sub")),
        tag("span", measurement, class_="mono hex"),
        tag("", judged.status.value, tag("span", _root(judged.root), class_="sub mono")),
        tag(
            "",
            moment(utc_text(end)),
            tag("span", f"{span(now - begin)} old, {span(end - now)} left", class_="sub"),
        ),
        tag(
            "",
            moment(utc_text(accepted.valid_until)),
            tag("span", f"{span(accepted.valid_until - now)} left", class_="sub"),
        ),
        "tells no metrics" if seen.reading is None else number(requests or 0.0),
    ]


def _models(snapshot: Snapshot) -> Html:
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for seen in snapshot.seen:
        for each in seen.versions:
            found.setdefault((each.model, each.version, each.state, each.problem), []).append(seen.place.name)
    if not found:
        return section("models", "Models", faint("No accepted replica tells of models."))
    rows: list[list[Html | str]] = [
        [
            model,
            version,
            tag("", mark("good" if state == "AVAILABLE" else "warn", state[:20]), tag("span", said, class_="sub")),
            ", ".join(names[:20]),
        ]
        for (model, version, state, said), names in sorted(found.items())
    ]
    return section("models", "Models", table("As the replicas tell.", ("Model", "Version", "State", "Replicas"), rows))


def _plots(snapshot: Snapshot) -> Html:
    none = "No replica tells this: it needs metrics_path in ensconce.yaml, and two looks."

    def draw(title: str, lines: Mapping[str, str], say: Callable[[float], str], absent: str = none) -> Html:
        return plot(title, [Line(name, snapshot.series.get(key, ())) for name, key in lines.items()], say, absent)

    def per_second(value: float) -> str:
        return f"{number(value)}/s"

    def microseconds(value: float) -> str:
        return duration(value / 1e6)

    figures = [
        draw("Requests", {"answered": "answered", "failed": "failed"}, per_second),
        draw(
            "Latency of what was answered",
            {"half within": "latency half", "99 % within": "latency 99 %"},
            microseconds,
            "No request was answered since the first look, or no replica tells metrics.",
        ),
        draw(
            "Waiting in queues",
            {"half within": "queue half", "99 % within": "queue 99 %"},
            duration,
            "No request waited since the first look, or no replica tells metrics.",
        ),
        draw("Requests in the replicas", {"in all": "inside"}, number),
        draw(
            "Key requests",
            {"released": "released", "refused": "refused"},
            per_second,
            "No provisioning server was named, or there was one look only.",
        ),
    ]
    return section("plots", "Traffic", tag("div", *figures, class_="plots"))


def _keys(snapshot: Snapshot, sources: Sources) -> Html:
    content: list[Html] = []
    if sources.entries is None:
        content.append(
            faint("Who received which key is in the owner's log: give --owner to see it. Counts are public:")
        )
        counts: dict[str, float] = {}
        for server in snapshot.servers:
            if server.reading is not None:
                for check, count in server.reading.by(REFUSALS, "check").items():
                    counts[check] = counts.get(check, 0.0) + count
        rows: list[list[Html | str]] = [
            [check, number(count)] for check, count in sorted(counts.items())[:_SHOWN_EVENTS]
        ]
        if rows:
            content.append(table("Refusals since the server's start.", ("Check that failed", "Times"), rows))
    elif snapshot.events:
        content.append(
            table(
                "From the owner's log, the newest first; every entry was checked.",
                ("Entry", "When", "What", "Keys", "Who", "Why"),
                [_event(alike) for alike in _alike(snapshot.events)[:_SHOWN_EVENTS]],
            )
        )
    else:
        content.append(faint("The log has no release and no refusal."))
    return section("keys", "Keys", *content)


def _alike(events: Sequence[Entry]) -> list[list[Entry]]:
    """Refusals that follow each other and say the same, together: who is refused asks again and again."""

    def says(entry: Entry) -> list[str]:
        if entry.event != "key.refused":
            return [str(entry.seq)]
        peer = cut(entry.fields.get("peer", "")).rpartition(":")[0]
        return [peer, *(cut(entry.fields.get(each, "")) for each in ("identity", "key_id", "check", "problem", *_WHY))]

    return [list(alike) for _, alike in groupby(events, says)]


def _event(alike: Sequence[Entry]) -> list[Html | str]:
    entry, first = alike[0], alike[-1]
    fields = entry.fields
    released = entry.event == "key.released"
    keys = fields.get("key_ids", fields.get("key_id", ""))
    if released:
        why = tag("", f"TCB status {cut(fields.get('tcb_status', ''))}")
    else:
        more = [tag("span", f"{each}: {cut(fields[each])}", class_="sub") for each in _WHY if each in fields]
        why = tag("", cut(fields.get("problem", "")), *more)
    who = tag("", cut(fields.get("identity", "not known")), tag("span", cut(fields.get("peer", "")), class_="sub mono"))
    check = [] if released else [tag("span", cut(fields.get("check", "")), class_="sub mono check")]
    times = [] if entry is first else [tag("span", f"{len(alike)} times since ", moment(first.time), class_="sub")]
    return [
        str(entry.seq) if entry is first else f"{first.seq} to {entry.seq}",
        tag("", moment(entry.time), *times),
        tag("", mark("good" if released else "bad", "Released" if released else "Refused"), *check),
        tag("span", cut(keys), class_="mono") if keys else "",
        who,
        why,
    ]


def _log(snapshot: Snapshot) -> Html:
    content: list[Html] = []
    for seen, what in (
        (snapshot.heads, "As the provisioning server shows it"),
        (snapshot.log, "On this machine, every entry checked"),
    ):
        if seen is None:
            continue
        light, word, sentence = _light(seen)
        content += [tag("h3", what), tag("p", mark(light, word), " ", sentence)]
        for error in (seen.bent, seen.error):
            if error is not None:
                content.append(problem(error))
        if seen.head is not None:
            content.append(
                pairs(
                    {
                        "Entries": f"{seen.head.size:,}",
                        "Signed": seen.head.time,
                        "Root": seen.head.root.hex(),
                        "Signed by key": seen.head.key_id,
                    }
                )
            )
    if not content:
        content.append(faint("No log was named: give --provisioning with --public-key, or --owner."))
    return section("log", "Audit log", *content)


def _light(seen: LogSeen) -> tuple[str, str, str]:
    """How the log is: which light, a word, and a sentence."""
    if seen.bent is not None:
        return (
            "bad",
            "Bent",
            "The log is not what it was. This stays until somebody has looked, and started the dashboard again.",
        )
    if seen.head is None:
        return "warn", "Not seen", "No head of the log could be had."
    if seen.error is not None:
        return "warn", "Not reached", "The last head was good; now there is no answer."
    if seen.checks:
        return "good", "Consistent", "Each head was shown to continue the one before."
    return "good", "Good", "What was read is the owner's, and the log has not gone back since."


def _servers(servers: Sequence[Server]) -> Html:
    if not servers:
        return section("servers", "Provisioning", faint("No provisioning server was named: give --provisioning."))
    rows: list[list[Html | str]] = []
    for server in servers:
        state = (
            mark("good", "Ready") if server.error is None else tag("", mark("bad", "Not ready"), problem(server.error))
        )
        reading = server.reading
        *values, expiry = (reading.total(each) if reading is not None else None for each in SERVER_FIELDS)
        until = utc_text(expiry) if expiry is not None and 0 < expiry < 2**33 else "none yet"
        rows.append([server.url, state, *("" if value is None else number(value) for value in values), until])
    columns = (
        "Server",
        "State",
        "Policy",
        "Policies refused",
        "Collateral refused",
        "Revocations left out",
        "Collateral until",
    )
    return section("servers", "Provisioning", table("As the status addresses say.", columns, rows))


def _root(root: str) -> str:
    return root if root == "intel" else root[:26]
