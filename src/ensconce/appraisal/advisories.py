"""What TCB statuses and security advisories mean, in a sentence each, for people who have to decide.

Sources: Intel PCS API version 4 ("Get TCB Info", on ``tcbStatus``). Of advisories, only those have a sentence that TCB
info names for SGX or TDX. It says no more than the records do which Intel itself wrote for the CVEs named in it (CVE
List V5), and, where these say little: Intel's Software Security Guidance (SA-00115, "Speculative Store Bypass";
SA-00161, "L1 Terminal Fault"; SA-00960, "Trusted Execution Configuration Register Access"), Linux (SA-00320:
``special-register-buffer-data-sampling.rst``; SA-00657: commit b8d1d163604b). The sentences decide nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ensconce.appraisal.verdict import TcbStatus

__all__ = ["Advisory", "advisories_of", "meaning_of"]

_INTEL = re.compile(r"INTEL-SA-[0-9]{5}")
_LIST = "https://www.intel.com/content/www/us/en/security-center/default.html"

_STATUSES = {
    TcbStatus.UP_TO_DATE: "Microcode, firmware and SGX software are as recent as the vendor asks for.",
    TcbStatus.SW_HARDENING_NEEDED: "The platform is up to date; the advisories named with it need mitigations in the "
    "software inside the enclave, which no quote can show.",
    TcbStatus.CONFIGURATION_NEEDED: "The platform is up to date, but a setting in its firmware (such as "
    "hyper-threading) leaves open what the advisories describe.",
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: "The platform is up to date, but both a firmware setting and "
    "mitigations in the enclave's software matter for the advisories named with it.",
    TcbStatus.OUT_OF_DATE: "The platform lacks security updates that its vendor has published; the advisories name "
    "what they mend.",
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: "The platform lacks published security updates, and a setting in its "
    "firmware matters as well.",
    TcbStatus.TD_RELAUNCH_ADVISED: "The TDX module has been updated since the trust domain was started; the domain "
    "should be started again.",
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: "The trust domain should be started again on the updated TDX "
    "module, and a setting in the platform's firmware matters as well.",
}

_MEANINGS = {
    "INTEL-SA-00088": "Speculative execution and branch prediction leak data through side channels (Spectre, "
    "Meltdown, CVE-2017-5715, CVE-2017-5753, CVE-2017-5754).",
    "INTEL-SA-00115": "Reads that speculation makes before earlier writes are done, or of system registers, leak data "
    "(Spectre variants 4 and 3a, CVE-2018-3639, CVE-2018-3640).",
    "INTEL-SA-00161": "Speculation reads an enclave's data out of the first-level cache (L1 terminal fault, "
    "Foreshadow, CVE-2018-3615).",
    "INTEL-SA-00219": "The processor's graphics unit may read parts of an enclave's memory (CVE-2019-0117).",
    "INTEL-SA-00233": "Data in the core's internal buffers leaks to other code (MDS, 2019).",
    "INTEL-SA-00270": "Aborted transactions leak data in the core's internal buffers (TSX asynchronous abort, "
    "CVE-2019-11135).",
    "INTEL-SA-00289": "Voltage settings are not checked well enough: a privileged host can make enclaves miscalculate "
    "(Plundervolt, CVE-2019-11157).",
    "INTEL-SA-00320": "Random numbers (RDRAND, RDSEED) and enclaves' derived keys (EGETKEY) leak to other cores "
    "(special register buffer data sampling, CrossTalk, CVE-2020-0543).",
    "INTEL-SA-00334": "An attacker's values are slipped into an enclave's speculation, which then leaks data; the "
    "enclave's own code needs the mitigation (load value injection, 2020).",
    "INTEL-SA-00381": "Remains of vector registers leak to other code (CVE-2020-8696, CVE-2020-8698).",
    "INTEL-SA-00389": "Power meters that software can read tell what an enclave computes (RAPL, PLATYPUS, 2020).",
    "INTEL-SA-00615": "Stale data in the processor's buffers can be read through memory-mapped I/O; the enclave's own "
    "code needs a mitigation as well (MMIO stale data, 2022).",
    "INTEL-SA-00657": "A privileged host can read stale data, an enclave's too, through the interrupt controller's "
    "registers in memory (AEPIC Leak, CVE-2022-21233).",
    "INTEL-SA-00738": "Permissions in some settings of the memory controller are wrong: a privileged host may gain "
    "rights over enclaves of Xeon processors (CVE-2022-33196).",
    "INTEL-SA-00767": "Shared resources are not isolated well enough: a privileged host may read data of enclaves "
    "(CVE-2022-38090).",
    "INTEL-SA-00828": "Gather instructions reveal what other code on the core left in vector registers (gather data "
    "sampling, Downfall, 2023).",
    "INTEL-SA-00837": "A privileged host can inject errors into enclaves and trust domains (CVE-2022-41804).",
    "INTEL-SA-00960": "Malicious firmware (BIOS, SMM) can set registers of Xeon processors so that SGX and TDX do not "
    "protect what runs in them (CVE-2023-22655).",
    "INTEL-SA-01036": "The TDX module does not check its input well enough (CVE-2023-45745, CVE-2023-47855).",
    "INTEL-SA-01045": "Microcode of some Xeon D processors calculates a key wrongly: a privileged host may read what "
    "SGX protects (CVE-2023-43490).",
}


@dataclass(frozen=True, slots=True)
class Advisory:
    """A security advisory that applies to a platform.

    Attributes:
        id: such as ``INTEL-SA-00615``; from a signed document, but no more than a string.
        meaning: what it is about, or that it is not known here.
        url: where its issuer describes it; None where the id is not one of Intel's.
    """

    id: str
    meaning: str
    url: str | None


def meaning_of(status: TcbStatus) -> str:
    """What a TCB status means."""
    return _STATUSES[status]


def advisories_of(ids: Iterable[str]) -> tuple[Advisory, ...]:
    """What advisories mean, in the order of their ids' list."""
    return tuple(map(_advisory, ids))


def _advisory(name: str) -> Advisory:
    if name.startswith("SIMULATED-SA-"):
        return Advisory(name, "An advisory of the simulated platform, which stands for any of Intel's.", None)
    if not _INTEL.fullmatch(name):
        return Advisory(name, f"Not an id of Intel's; look for it at {_LIST}", None)
    url = f"https://www.intel.com/content/www/us/en/security-center/advisory/{name.lower()}.html"
    return Advisory(
        name, _MEANINGS.get(name, "This version of ensconce has no sentence on it; read what Intel says."), url
    )
