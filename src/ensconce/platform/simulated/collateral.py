"""The documents by which the vendor judges machines: TCB info, QE identity and revocation lists, in every condition.

Formats: Intel SGX and TDX provisioning certification service, API version 4 (TCB info version 3, enclave identity
version 2). The signature of a document is over the exact bytes of its inner object.

A :class:`CollateralRecipe` says in which condition: its defaults are a healthy machine; what a test, a demonstration or
a drill needs to go wrong is named in one field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ensconce.appraisal.collateral import Collateral
from ensconce.evidence.quote import Tee
from ensconce.platform.simulated.certificates import Party, revocation_list, sign_raw
from ensconce.platform.simulated.quoting import TD_QUOTING_ENCLAVE, QuotingEnclave
from ensconce.times import utc_text

if TYPE_CHECKING:
    from ensconce.platform.simulated.pki import CA, SimulatedVendor

__all__ = ["ABSENT", "CollateralRecipe", "CrlRecipe", "DocumentRecipe", "isv_level", "prepare", "tcb_level"]

ABSENT = object()
"""As a value in :attr:`DocumentRecipe.changes`: leave the field out."""

EVALUATION_DATA_NUMBER = 1
ADVISORY = "SIMULATED-SA-00001"
"""The advisory that every level below the machine's carries; Intel's begin with INTEL-SA."""
MODULE_ADVISORY = "SIMULATED-SA-00002"
"""The advisory that TDX modules below the machine's carry."""

_TCB_DATE = "2026-01-14T00:00:00Z"
_OLD_TCB_DATE = "2025-01-15T00:00:00Z"
_HOUR = 3600
_DAY = 24 * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRecipe:
    """How one signed JSON document is made.

    Attributes:
        changes: fields of the inner object to set before signing, or to leave out (``ABSENT``).
        issued: issueDate in seconds relative to now.
        next_update: nextUpdate in seconds relative to now.
        signer: who signs; the vendor's TCB signer when absent.
        chain: the issuer chain to present, leaf first; signer and root when absent.
    """

    changes: Mapping[str, object] = field(default_factory=dict)
    issued: int = -_HOUR
    next_update: int = 30 * _DAY
    signer: Party | None = None
    chain: Sequence[Party] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlRecipe:
    """How one revocation list is made.

    Attributes:
        revoked: serial numbers.
        issued: thisUpdate in seconds relative to now.
        next_update: nextUpdate in seconds relative to now.
        issuer: who signs; the rightful CA when absent. A party of the right name with another key makes a forgery.
    """

    revoked: Sequence[int] = ()
    issued: int = -_HOUR
    next_update: int = 30 * _DAY
    issuer: Party | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralRecipe:
    """In which condition the vendor says the machine is.

    Attributes:
        tee: for which kind of quote the two documents are.
        ca: the PCK CA whose revocation list is included.
        tcb_status: Intel's name of the status of the machine's own TCB level.
        advisory_ids: of the machine's own TCB level.
        module_status: Intel's name of the status of the TDX module's own level.
        qe_status: Intel's name of the status of the quoting enclave's own level.
        tcb_info: the TCB info document.
        qe_identity: the QE identity document.
        root_crl: the root's revocation list.
        pck_crl: the PCK CA's revocation list.
    """

    tee: Tee = "sgx"
    ca: CA = "platform"
    tcb_status: str = "UpToDate"
    advisory_ids: Sequence[str] = ()
    module_status: str = "UpToDate"
    qe_status: str = "UpToDate"
    tcb_info: DocumentRecipe = field(default_factory=DocumentRecipe)
    qe_identity: DocumentRecipe = field(default_factory=DocumentRecipe)
    root_crl: CrlRecipe = field(default_factory=CrlRecipe)
    pck_crl: CrlRecipe = field(default_factory=CrlRecipe)

    def of_tee(self, tee: Tee) -> CollateralRecipe:
        """The same condition, for quotes of the given kind."""
        return replace(self, tee=tee)

    def of_ca(self, ca: CA) -> CollateralRecipe:
        """The same condition, with the revocation list of the given PCK CA."""
        return replace(self, ca=ca)


def tcb_level(
    components: Sequence[int],
    pce_svn: int,
    status: str,
    advisory_ids: Sequence[str] = (),
    date: str = _TCB_DATE,
    *,
    tdx_components: Sequence[int] | None = None,
) -> dict[str, Any]:
    """One TCB level of TCB info version 3, for ``changes={"tcbLevels": [...]}``."""
    tcb: dict[str, object] = {"sgxtcbcomponents": [{"svn": svn} for svn in components], "pcesvn": pce_svn}
    if tdx_components is not None:
        tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in tdx_components]
    return _level(tcb, status, advisory_ids, date)


def isv_level(isv_svn: int, status: str, advisory_ids: Sequence[str] = (), date: str = _TCB_DATE) -> dict[str, Any]:
    """One TCB level of a quoting enclave or of a TDX module, which have one security version alone."""
    return _level({"isvsvn": isv_svn}, status, advisory_ids, date)


def _level(tcb: Mapping[str, object], status: str, advisory_ids: Sequence[str], date: str) -> dict[str, Any]:
    level: dict[str, Any] = {"tcb": tcb, "tcbDate": date, "tcbStatus": status}
    if advisory_ids:
        level["advisoryIDs"] = list(advisory_ids)
    return level


def prepare(vendor: SimulatedVendor, now: int, recipe: CollateralRecipe) -> Collateral:
    """Make and sign all documents as of ``now`` (Unix seconds)."""
    tcb_info, tcb_info_signature, tcb_info_chain = _signed(vendor, now, recipe.tcb_info, _tcb_info(vendor, recipe))
    qe_identity, qe_identity_signature, qe_identity_chain = _signed(
        vendor, now, recipe.qe_identity, _qe_identity(recipe)
    )
    pck_ca = vendor.pck_ca(recipe.ca)
    return Collateral(
        pck_crl_issuer_chain=pck_ca.pem + vendor.root.pem,
        root_ca_crl=_crl(vendor.root, now, recipe.root_crl),
        pck_crl=_crl(pck_ca, now, recipe.pck_crl),
        tcb_info_issuer_chain=tcb_info_chain,
        tcb_info=tcb_info,
        tcb_info_signature=tcb_info_signature,
        qe_identity_issuer_chain=qe_identity_chain,
        qe_identity=qe_identity,
        qe_identity_signature=qe_identity_signature,
    )


def _tcb_info(vendor: SimulatedVendor, recipe: CollateralRecipe) -> dict[str, Any]:
    own = vendor.COMPONENTS
    older = (own[0] - 1, *own[1:])
    tdx = older_tdx = None
    if recipe.tee == "tdx":
        # Since version 1.5, the TDX module's own security version is in the identities below, and its major version is
        # in their names; here the first two components are what version 1.0 needed.
        tdx = (5, 0, *vendor.TEE_TCB_SVN[2:])
        older_tdx = (5, 0, tdx[2] - 1, *tdx[3:])
    return {
        "id": recipe.tee.upper(),
        "version": 3,
        "fmspc": vendor.FMSPC.hex().upper(),
        "pceId": vendor.PCE_ID.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": EVALUATION_DATA_NUMBER,
        **(_tdx_modules(vendor, recipe) if recipe.tee == "tdx" else {}),
        "tcbLevels": [
            tcb_level(own, vendor.PCE_SVN, recipe.tcb_status, recipe.advisory_ids, tdx_components=tdx),
            tcb_level(older, vendor.PCE_SVN - 1, "OutOfDate", [ADVISORY], _OLD_TCB_DATE, tdx_components=older_tdx),
        ],
    }


def _tdx_modules(vendor: SimulatedVendor, recipe: CollateralRecipe) -> dict[str, Any]:
    # As in Intel's own: the CPU's vendor signs its modules with a measurement of zero, and no attribute is defined.
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    isv_svn, version = vendor.TEE_TCB_SVN[:2]
    levels = [
        isv_level(isv_svn, recipe.module_status),
        isv_level(isv_svn - 1, "OutOfDate", [MODULE_ADVISORY], _OLD_TCB_DATE),
    ]
    return {
        "tdxModule": module,
        "tdxModuleIdentities": [{"id": f"TDX_{version:02X}", **module, "tcbLevels": levels}],
    }


def _qe_identity(recipe: CollateralRecipe) -> dict[str, Any]:
    own = QuotingEnclave() if recipe.tee == "sgx" else TD_QUOTING_ENCLAVE
    return {
        "id": "QE" if recipe.tee == "sgx" else "TD_QE",
        "version": 2,
        "tcbEvaluationDataNumber": EVALUATION_DATA_NUMBER,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        # All flags but MODE64BIT count, XFRM does not, as in Intel's own.
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": own.mr_signer.hex().upper(),
        "isvprodid": own.isv_prod_id,
        "tcbLevels": [
            isv_level(own.isv_svn, recipe.qe_status),
            isv_level(own.isv_svn - 1, "OutOfDate", [ADVISORY], _OLD_TCB_DATE),
        ],
    }


def _signed(
    vendor: SimulatedVendor, now: int, recipe: DocumentRecipe, content: Mapping[str, Any]
) -> tuple[str, bytes, str]:
    """The document's text, its signature, and its issuer chain."""
    head = {"id": content["id"], "version": content["version"]}
    dates = {"issueDate": utc_text(now + recipe.issued), "nextUpdate": utc_text(now + recipe.next_update)}
    fields = {**head, **dates, **content, **recipe.changes}
    text = json.dumps({name: v for name, v in fields.items() if v is not ABSENT}, separators=(",", ":"))
    signer = recipe.signer or vendor.tcb_signer
    chain = (signer, vendor.root) if recipe.chain is None else recipe.chain
    return text, sign_raw(signer.key, text.encode()), "".join(party.pem for party in chain)


def _crl(rightful: Party, now: int, recipe: CrlRecipe) -> bytes:
    return revocation_list(
        recipe.issuer or rightful,
        issued=now + recipe.issued,
        next_update=now + recipe.next_update,
        revoked=recipe.revoked,
    )
