"""How ``ensconce enclave lint`` prints: what is wrong in each manifest, and the exit status that goes with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from ensconce.cli.output import print_json, say
from ensconce.enclave.lint import Finding, lint_text
from ensconce.errors import EnsconceError, InputError, RefusedError, printable
from ensconce.files import read_bounded
from ensconce.platform.manifest import MAX_MANIFEST_SIZE

__all__ = ["lint_files"]


def lint_files(paths: Sequence[Path], json: bool) -> None:
    """Lint and print; raises ``typer.Exit`` with 4 when one is refused, 2 when one cannot be read."""
    looked_at = [(path, _findings(path)) for path in paths]
    if json:
        print_json({"manifests": [_value(path, result) for path, result in looked_at]})
    else:
        for path, result in looked_at:
            _print(path, result)
    findings = [each for _, result in looked_at if not isinstance(result, EnsconceError) for each in result]
    if any(each.severity == "refuse" for each in findings):
        raise typer.Exit(RefusedError.exit_status)
    if any(isinstance(result, EnsconceError) for _, result in looked_at):
        raise typer.Exit(InputError.exit_status)


def _findings(path: Path) -> tuple[Finding, ...] | EnsconceError:
    try:
        return lint_text(read_bounded(path, MAX_MANIFEST_SIZE), signed=path.suffix == ".sgx")
    except EnsconceError as error:
        return error
    except OSError as error:
        return InputError("manifest.read", f"cannot read {path}", found=error.strerror, remedy="check the path")


def _print(path: Path, result: tuple[Finding, ...] | EnsconceError) -> None:
    if isinstance(result, EnsconceError):
        say(f"{path}: cannot be read: {result}")
        return
    for each in result:
        line = f":{each.line}" if each.line is not None else ""
        invariant = f" (breaks {each.invariant})" if each.invariant and each.severity == "refuse" else ""
        say(printable(f"{path}{line}: {each.severity}: {each.problem} [{each.check}]"))
        say(f"  attack: {each.attack}{invariant}")
        say(f"  remedy: {each.remedy}")
    counts = Counter(each.severity for each in result)
    say(f"{path}: {counts['refuse']} refuse, {counts['warn']} warn, {counts['note']} note")


def _value(path: Path, result: tuple[Finding, ...] | EnsconceError) -> dict[str, Any]:
    if isinstance(result, EnsconceError):
        return {"manifest": str(path), "error": result.fields()}
    return {
        "manifest": str(path),
        "refused": any(each.severity == "refuse" for each in result),
        "findings": [each.to_json_object() for each in result],
    }
