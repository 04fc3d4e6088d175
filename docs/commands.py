"""Writes docs/reference/commands.md: every command's help, as the command prints it. ``python docs/commands.py``."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from ensconce.cli.main import app

TARGET = Path(__file__).parent / "reference" / "commands.md"
GROUPS = {
    "The owner": (
        *("init", "model fetch", "model import", "model seal", "model reseal", "model retire"),
        *(f"enclave {name}" for name in ("build", "lint", "measure", "sign", "show")),
        *(f"key {name}" for name in ("put", "list", "show", "retire", "rewrap", "backup", "recover")),
        *(f"policy {name}" for name in ("write", "check", "explain", "diff", "sign", "apply", "show")),
        *("provision serve", "audit show", "audit verify", "audit prove", "audit export", "publish"),
    ),
    "The host": (
        "up",
        "status",
        "scale",
        "roll",
        "logs",
        "down",
        "model pull",
        "replica run",
        "kubernetes render",
        "kubernetes values",
        "kubernetes status",
    ),
    "The client": ("verify", "predict", "proxy", "dashboard", "bench", "audit witness"),
    "Tools": (
        *("quote show", "quote verify", "collateral fetch", "collateral bundle", "collateral show"),
        *("file encrypt", "file decrypt", "tls issue"),
        *("simulated serve", "simulated root", "demo"),
    ),
}
PREFACE = """# Commands

Made from the commands' own help by `docs/commands.py`; a test compares the two. Every command exits with 0 when all is
well, 2 on wrong input, 3 when evidence is not genuine, 4 when a policy refuses, 5 when the other side is not reached, 6
when stored data is damaged, 130 when it is interrupted, 1 on anything else. With `--json`, standard output is one
JSON document, also for an error: `{"error": {"check": ..., "problem": ..., "found": ..., "rule": ..., "remedy": ...}}`.
Times in it are RFC 3339 in UTC, to the second: `2026-01-31T12:00:00Z`; what
the fields of a log entry hold is printed as it was signed.
"""


def help_of(command: str) -> str:
    """What ``ensconce COMMAND --help`` prints."""
    done = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="ensconce", terminal_width=100)
    assert done.exit_code == 0, done.output
    return "\n".join(line.rstrip() for line in done.output.strip().splitlines())


def reference() -> str:
    """The whole page."""
    parts = [PREFACE]
    for group, commands in GROUPS.items():
        parts.append(f"## {group}\n")
        parts += [f"### `ensconce {command}`\n\n```text\n{help_of(command)}\n```\n" for command in commands]
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(reference())
