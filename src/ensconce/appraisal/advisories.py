"""What TCB statuses and security advisories mean, in a sentence each, for people who have to decide.

Sources: Intel PCS API version 4 ("Get TCB Info", on ``tcbStatus``); Intel's security advisories, of which only those
have a sentence that TCB info names for SGX or TDX. The sentences decide nothing.
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

_MEANINGS: dict[str, str] = {
    "INTEL-SA-00615": "Stale data in buffers of memory-mapped I/O may be read by other code on the processor "
    "(MMIO stale data, 2022).",
    "INTEL-SA-00828": "Gather instructions may reveal what other code on the same core left in vector registers "
    "(gather data sampling, Downfall, 2023).",
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
    return Advisory(name, _MEANINGS.get(name, "Not known to this version of ensconce; Intel describes it there."), url)
