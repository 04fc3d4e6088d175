"""The negatives of tests/unit/appraisal before Intel's own verification library, with the simulated root passed in.

The library is Intel's SGX Quote Verification Library of 2022/23, from the package ``sgx-dcap-quote-verify-python``; it
judges SGX quotes of version 3. Every case says whether it refuses too, and where not, why.
"""

from __future__ import annotations

import datetime
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.platform.simulated.pki import SimulatedVendor

intel = pytest.importorskip(
    "sgx_dcap_quote_verify", reason="Intel's library is not installed: pip install sgx-dcap-quote-verify-python==0.0.3"
)

NOW = 1_790_000_000
YEAR = 365 * 86_400
KIND = "SGX v3"
NEGATIVES = Path(__file__).parents[2] / "unit" / "appraisal"
END = b"-----END CERTIFICATE-----\n"


def load(path: Path) -> ModuleType:
    """A test module, for what it lists."""
    name = f"negatives_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


common = load(NEGATIVES / "conftest.py")
CASES = {
    name: common.Negative(**case)
    for path in sorted(NEGATIVES.glob("test_negatives_*.py"))
    for name, case in load(path).CASES.items()
    if KIND in case.get("kinds", common.KINDS)
}


@pytest.fixture(scope="module")
def world() -> Any:
    vendors = (SimulatedVendor(bytes([number]) * 32, NOW - YEAR) for number in (0, 1))
    return common.World(KIND, *vendors)


# As ours, its verdict may be that the TCB is not what it should be; that is no refusal.
STATUSES = {
    f"STATUS_TCB_{name}"
    for name in (
        "OUT_OF_DATE",
        "OUT_OF_DATE_CONFIGURATION_NEEDED",
        "CONFIGURATION_NEEDED",
        "SW_HARDENING_NEEDED",
        "CONFIGURATION_AND_SW_HARDENING_NEEDED",
    )
}


def accepts(world: Any, quote: bytes | None, papers: Collateral | None) -> bool:
    """Whether Intel's library has a TCB status for it."""
    data = world.sound if quote is None else quote
    papers = papers or world.sound_papers
    # It is given leaf and issuers apart, as its callers find them in the quote.
    begin = data.find(b"-----BEGIN")
    chain = data[begin:].rstrip(b"\0") if begin >= 0 else b""
    blocks = [block + END for block in chain.split(END)[:-1]]
    try:
        verdict = intel.verify(
            trusted_root_ca_certificate=world.vendor.root.pem,
            pck_certificate=blocks[0].decode() if blocks else "",
            pck_signing_chain=b"".join(blocks[1:]).decode(),
            root_ca_crl=papers.root_ca_crl.hex(),
            intermediate_ca_crl=papers.pck_crl.hex(),
            tcb_info=f'{{"tcbInfo":{papers.tcb_info},"signature":"{papers.tcb_info_signature.hex()}"}}',
            tcb_signing_chain=papers.tcb_info_issuer_chain,
            quote=data,
            qe_identity=(
                f'{{"enclaveIdentity":{papers.qe_identity},"signature":"{papers.qe_identity_signature.hex()}"}}'
            ),
            # The library takes a datetime without a zone for UTC.
            expiration_date=datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None),
        )
    except (ValueError, RuntimeError, UnicodeDecodeError):
        return False
    parts = (verdict.pck_certificate_status, verdict.tcb_info_status, verdict.qe_identity_status)
    return all(part.name == "STATUS_OK" for part in parts) and (
        verdict.quote_status.name == "STATUS_OK" or verdict.quote_status.name in STATUSES
    )


@pytest.mark.parametrize("name", CASES)
def test_what_we_refuse_intel_refuses_unless_we_know_why_not(world: Any, name: str) -> None:
    quote, papers = CASES[name].parts(world)
    assert accepts(world, None, None)
    accepted = accepts(world, quote, papers)
    assert accepted == bool(CASES[name].intel)
