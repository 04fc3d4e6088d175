"""What must not be in a manifest, and which attack it would open: ours before it is signed, and anybody else's.

Reading (``lint_source``), knowing (``lint_rules``) and looking (the other ``lint_*``) live apart; here they meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ensconce.enclave.contents import ENTRY_MODULE, GRAMINE_ENTRY_MODULE
from ensconce.enclave.early import INDEX
from ensconce.enclave.lint_evidence import evidence_findings
from ensconce.enclave.lint_files import Files, file_findings
from ensconce.enclave.lint_finding import Finding, Hit
from ensconce.enclave.lint_host import arguments, environment, switches
from ensconce.enclave.lint_keys import options, residue
from ensconce.enclave.lint_rule import Severity
from ensconce.enclave.lint_source import Reading, read_manifest, read_signed
from ensconce.enclave.lint_tfserving import tfserving_findings
from ensconce.enclave.manifest import ALLOWED_FILES, CONFIG, HARMLESS_FILES
from ensconce.enclave.trace import FLAGS
from ensconce.errors import RefusedError
from ensconce.platform.manifest import Manifest

__all__ = ["Finding", "check_signable", "lint", "lint_text"]

_ORDER: dict[Severity, int] = {"refuse": 0, "warn": 1, "note": 2}


def lint(manifest: Manifest) -> tuple[Finding, ...]:
    """Everything that is wrong with a signed ``manifest``, what refuses it first.

    Raises:
        InputError: ``manifest.*``: it cannot be read.
    """
    return lint_text(manifest.raw, signed=True)


def lint_text(data: bytes, *, signed: bool = False) -> tuple[Finding, ...]:
    """Everything that is wrong with a manifest: signed, unsigned or a template, of Gramine or of Graphene.

    Args:
        data: the manifest.
        signed: it is what ``gramine-sgx-sign`` makes, which Gramine reads as it stands: there is no template in it.

    Returns:
        The findings, what refuses it first, then by line; one for each rule and place.

    Raises:
        InputError: ``manifest.*``: it cannot be read.
    """
    found: dict[tuple[str, str, int | None], Finding] = {}
    for reading in (read_signed(data),) if signed else read_manifest(data):
        for hit in _hits(reading, signed=signed):
            line = hit.line if hit.line is not None else reading.line(hit.key)
            finding = Finding.of(hit, line)
            # The same place may be worse in another branch of a template.
            known = found.get((hit.code, hit.key, line))
            if known is None or _ORDER[finding.severity] < _ORDER[known.severity]:
                found[hit.code, hit.key, line] = finding
    return tuple(sorted(found.values(), key=lambda each: (_ORDER[each.severity], each.line or 0, each.check)))


def check_signable(findings: tuple[Finding, ...]) -> None:
    """Refuse what must not be signed.

    Raises:
        RefusedError: with the check of the first finding that refuses it.
    """
    for finding in findings:
        if finding.severity == "refuse":
            raise RefusedError(
                finding.check,
                f"the manifest is not signed: {finding.problem}",
                rule=finding.attack,
                remedy=finding.remedy,
            )


def _hits(reading: Reading, *, signed: bool) -> Iterator[Hit]:
    harmless = _harmless(reading)
    files = Files.of(reading, frozenset(harmless or ()))
    if signed:
        yield from residue(reading)
    yield from arguments(reading, files)
    yield from environment(reading, files)
    yield from switches(reading)
    yield from file_findings(reading, files, ours=harmless is not None)
    yield from evidence_findings(reading, files)
    yield from tfserving_findings(reading, files)
    yield from options(reading)


def _harmless(reading: Reading) -> Iterable[str] | None:
    """What a manifest that starts our replica, and nothing else, may allow; None for any other manifest."""
    argv, program = reading.get("loader.argv"), reading.get("libos.entrypoint")
    if argv == [program, *FLAGS, "-m", ENTRY_MODULE, CONFIG]:
        return ALLOWED_FILES
    if argv == [program, *FLAGS, "-m", GRAMINE_ENTRY_MODULE, CONFIG]:
        # What it checks its libraries by.
        return HARMLESS_FILES if Files.of(reading, frozenset()).trusts(f"file:{INDEX}") else ALLOWED_FILES
    return None
