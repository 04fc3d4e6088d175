"""Run targets for a while each, and tell what came of it: ``python -m fuzz [--seconds N] [--jobs N] [TARGET ...]``.

Each target runs in a process of its own, from ``fuzz/corpus/TARGET`` and what earlier runs left in
``build/fuzz/TARGET/corpus``. A finding ends the target's run; its input is in ``build/fuzz/TARGET/findings`` and what
was said in ``build/fuzz/TARGET/log``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fuzz.seeds import CORPUS
from fuzz.targets import load, names

_BUILD = Path("build/fuzz")
_MEMORY_MB = 1024
_GRACE_S = 120
"""Beyond its time a run may take so long to start, to load its corpus and to end."""


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Attributes:
        name: the target.
        executions: inputs tried.
        accepted: of those, how many percent a parser took: where it is 0, the target does not get deep.
        edges: edges of the program that some input took.
        inputs: inputs that are kept because each takes another way.
        seconds: that it took.
        problem: the last line of what was said when it failed; None when nothing was found.
        findings: inputs that made it fail.
    """

    name: str
    executions: int
    accepted: int
    edges: int
    inputs: int
    seconds: float
    problem: str | None
    findings: tuple[Path, ...]


def run(name: str, seconds: int) -> Outcome:
    """Fuzz one target for so long."""
    target, home = load(name), _BUILD / name
    corpus, findings, log = home / "corpus", home / "findings", home / "log"
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    words = home / "words"
    words.write_text("".join(_quoted(word) for word in target.words))
    before = set(findings.iterdir())
    started = time.monotonic()
    command = [
        *(sys.executable, "-m", "fuzz.engine", name, str(corpus), str(CORPUS / name)),
        f"-max_total_time={seconds}",
        f"-max_len={target.max_size}",
        f"-timeout={int(target.cpu_s * 5)}",
        f"-rss_limit_mb={_MEMORY_MB}",
        f"-artifact_prefix={findings}/",
        *([f"-dict={words}"] if target.words else []),
        "-print_final_stats=1",
    ]
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=seconds + _GRACE_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    said = log.read_text(errors="replace")
    new = tuple(sorted(set(findings.iterdir()) - before))
    return Outcome(
        name=name,
        executions=_last(said, r"stat::number_of_executed_units:\s+(\d+)") or _last(said, r"^#(\d+)\s"),
        accepted=_last(said, r"stat::accepted_percent: (\d+)"),
        edges=_last(said, r"cov: (\d+)"),
        inputs=_last(said, r"corp: (\d+)"),
        seconds=time.monotonic() - started,
        problem=_problem(said, status) if status != 0 or new else None,
        findings=new,
    )


def _quoted(word: bytes) -> str:
    """A line of libFuzzer's dictionary."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n'


def _last(said: str, pattern: str) -> int:
    found = re.findall(pattern, said, re.M)
    return int(found[-1]) if found else 0


def _problem(said: str, status: int) -> str:
    """The line that says what was wrong: Python's, else libFuzzer's."""
    lines = re.findall(r"^(?:[\w.]+(?:Error|Exception|Interrupt)\b.*|==\d+== ?ERROR: .*|ALARM: .*)$", said, re.M)
    return lines[0][:300] if lines else f"it ended with status {status}; see the log"


def main() -> int:
    """Run what the command line says; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at the same time (default: 1)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names())} (default: all)")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    found = False
    _say(f"{'target':<14} {'executions':>10} {'per second':>10} {'accepted':>8} {'edges':>6} {'inputs':>6}  finding")
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for outcome in pool.map(lambda name: run(name, chosen.seconds), chosen.targets or names()):
            rate, accepted = outcome.executions / max(outcome.seconds, 1), f"{outcome.accepted}%"
            numbers = f"{outcome.executions:>10} {rate:>10.0f} {accepted:>8} {outcome.edges:>6} {outcome.inputs:>6}"
            _say(f"{outcome.name:<14} {numbers}  {outcome.problem or 'none'}")
            for path in outcome.findings:
                _say(f"{'':<14} {path}")
            if outcome.problem:
                _say(f"{'':<14} {_BUILD / outcome.name / 'log'}")
            found = found or outcome.problem is not None
    return 1 if found else 0


def _say(line: str) -> None:
    sys.stdout.write(line.rstrip() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
