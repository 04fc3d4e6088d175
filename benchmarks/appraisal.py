"""How many quotes are verified per second, and what the strict layer costs beside dcap-qvl.

    python benchmarks/appraisal.py [--quotes N] [--rounds N] [--processes N]

Every round does each measurement once (A B C A B C ...), so that a slow minute of the machine hits all alike; ratios
are of the same round. Quotes and collateral are the simulated platform's, whose sizes and signatures are those of real
ones; revocation lists are as long as Intel's of July 2026, 129 entries.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import dcap_qvl  # type: ignore[import-untyped]  # it has stubs, but no py.typed

from ensconce.appraisal import chains, pck
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.papers import read_papers
from ensconce.appraisal.root import SimulatedRoot
from ensconce.evidence.report import Attributes, SgxReport, TdReport
from ensconce.platform.simulated.collateral import CollateralRecipe, CrlRecipe
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote

NOW = 1_790_000_000
VENDOR = SimulatedVendor(bytes(32), NOW - 365 * 86_400)
ROOT = SimulatedRoot(VENDOR.root_certificate_der)
LIST = CrlRecipe(revoked=range(1000, 1129))
ALONE, LAYER = "dcap-qvl alone, claims as JSON", "verify_quote"


def reports() -> dict[str, SgxReport | TdReport]:
    """A report for each kind of quote."""
    svn = bytes(VENDOR.TEE_TCB_SVN)
    guest = replace(TdReport.from_bytes(bytes(584)), tee_tcb_svn=svn, td_attributes=(1 << 28).to_bytes(8, "little"))
    enclave = replace(SgxReport.from_bytes(bytes(384)), attributes=Attributes(5, 3))
    later = replace(guest, tee_tcb_svn2=svn, mr_service_td=bytes(48))
    return {"SGX v3": enclave, "TDX v4": guest, "TDX v5": later}


def quotes(report: SgxReport | TdReport, count: int) -> list[bytes]:
    """As many different quotes of one machine."""
    return [make_quote(VENDOR, replace(report, report_data=n.to_bytes(64, "big"))) for n in range(count)]


def alone(quote: bytes, bundle: object) -> object:
    """What nobody could do without: every signature, and the claims."""
    policy = dcap_qvl.QuotePolicy.claims_only(NOW)
    verifier = dcap_qvl.QuoteVerifier(ROOT.certificate_der)
    return json.loads(verifier.verify_with_policy(quote, bundle, NOW, policy).to_json())


def layer(quote: bytes, collateral: Collateral) -> object:
    """The whole of it."""
    return verify_quote(quote, collateral, at=NOW, root=ROOT)


def afresh(quote: bytes, collateral: Collateral) -> object:
    """The same with nothing kept from before: another machine, other collateral."""
    for kept in (read_papers, pck._read, chains._certificate, chains.issued_by):
        kept.cache_clear()
    return layer(quote, collateral)


def measure(count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """By kind of quote and measurement, milliseconds per quote, one value per round."""
    results: dict[str, dict[str, list[float]]] = {}
    steps: list[tuple[str, str, Callable[[], float]]] = []
    for kind, report in reports().items():
        made = quotes(report, count)
        recipe = CollateralRecipe(tee="tdx" if kind.startswith("TDX") else "sgx", pck_crl=LIST, root_crl=LIST)
        papers = VENDOR.collateral(NOW, recipe)
        bundle = dcap_qvl.QuoteCollateralV3.from_json(papers.to_json())
        for name, step, given in (
            (ALONE, alone, bundle),
            (LAYER, layer, papers),
            ("verify_quote, nothing kept", afresh, papers),
        ):
            results.setdefault(kind, {})[name] = []
            steps.append((kind, name, lambda step=step, made=made, given=given: timed(step, made, given)))
    for _ in range(rounds):
        for kind, name, step in steps:
            results[kind][name].append(step())
    return results


def timed(step: Callable[[bytes, object], object], made: list[bytes], given: object) -> float:
    """Milliseconds per quote."""
    start = time.perf_counter()
    for quote in made:
        step(quote, given)
    return (time.perf_counter() - start) / len(made) * 1000


def in_processes(count: int, processes: int) -> float:
    """Quotes per second, as a server has them verified: each with its collateral, in another process."""
    made = quotes(reports()["SGX v3"], count)
    papers = VENDOR.collateral(NOW, CollateralRecipe(pck_crl=LIST, root_crl=LIST))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(layer, made[: 4 * processes], [papers] * (4 * processes)))
        start = time.perf_counter()
        list(pool.map(layer, made, [papers] * count))
        return count / (time.perf_counter() - start)


def main() -> None:
    """Run the rounds; print medians, ratios and their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=int, default=200, help="different quotes per measurement")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=0, help="also in so many processes at once")
    options = parser.parse_args()
    print(f"{options.quotes} quotes, {options.rounds} rounds; median ms per quote [least to most]; ratio to alone")
    for kind, rows in measure(options.quotes, options.rounds).items():
        for name, times in rows.items():
            ratios = [mine / base for mine, base in zip(times, rows[ALONE], strict=True)]
            print(
                f"{kind}  {name:32} {statistics.median(times):6.3f} [{min(times):.3f} to {max(times):.3f}]"
                f"  {1000 / statistics.median(times):6.0f}/s"
                f"  x{statistics.median(ratios):.2f} [{min(ratios):.2f} to {max(ratios):.2f}]"
            )
    if options.processes:
        print(f"{options.processes} processes: {in_processes(10 * options.quotes, options.processes):.0f}/s")


if __name__ == "__main__":
    main()
