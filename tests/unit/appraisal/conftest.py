"""A simulated vendor, quotes of any report, and verdicts on them; nothing here stands in for what is tested."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import dcap_qvl
import pytest

from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.root import SimulatedRoot, TrustRoot
from ensconce.appraisal.verdict import _MINT, TcbStatus, Verdict
from ensconce.errors import EvidenceError
from ensconce.evidence.quote import parse_quote
from ensconce.evidence.report import Attributes, SgxReport, TdReport
from ensconce.platform.simulated.certificates import Party, Validity, issue
from ensconce.platform.simulated.collateral import CollateralRecipe, DocumentRecipe, tcb_level
from ensconce.platform.simulated.pck_extension import PckIdentity
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import TD_QUOTING_ENCLAVE, QuoteRecipe, QuotingEnclave, make_quote

NOW = 1_790_000_000
YEAR = 365 * 86_400


@dataclass(frozen=True)
class Source:
    """Collateral straight from the vendor."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        pass


@pytest.fixture(scope="session")
def vendor() -> SimulatedVendor:
    """Its certificates are a year old."""
    return SimulatedVendor(bytes(32), NOW - YEAR)


@pytest.fixture(scope="session")
def stranger() -> SimulatedVendor:
    """Another vendor: the same names, other keys."""
    return SimulatedVendor(b"\x01" * 32, NOW - YEAR)


@pytest.fixture(scope="session")
def root(vendor: SimulatedVendor) -> SimulatedRoot:
    return SimulatedRoot(vendor.root_certificate_der)


@pytest.fixture(scope="session")
def source(vendor: SimulatedVendor) -> Source:
    return Source(vendor.collateral(NOW))


@pytest.fixture(scope="session")
def report(vendor: SimulatedVendor, sound_report: Callable[..., SgxReport]) -> Callable[..., SgxReport]:
    """A report of a sound enclave, with fields of one's choice; ``flags`` are its attribute flags."""

    def make(flags: int = Attributes.INIT | Attributes.MODE64BIT, **fields: Any) -> SgxReport:
        return sound_report(vendor, attributes=Attributes(flags, 3), **fields)

    return make


@pytest.fixture(scope="session")
def quote(vendor: SimulatedVendor, report: Callable[..., SgxReport]) -> Callable[..., bytes]:
    """A quote of any report, made by any recipe."""

    def make(recipe: QuoteRecipe | None = None, **fields: Any) -> bytes:
        return make_quote(vendor, report(**fields), recipe)

    return make


@pytest.fixture(scope="session")
def collateral(vendor: SimulatedVendor) -> Callable[..., Collateral]:
    """The vendor's collateral, with the parts of a recipe that are given."""
    return lambda **recipe: vendor.collateral(NOW, CollateralRecipe(**recipe))


@pytest.fixture(scope="session")
def verify(
    root: SimulatedRoot, quote: Callable[..., bytes], collateral: Callable[..., Collateral]
) -> Callable[..., Verdict]:
    """The verdict; what is not given is sound."""

    def run(
        data: bytes | None = None, papers: Collateral | None = None, *, at: int = NOW, root: TrustRoot = root
    ) -> Verdict:
        return verify_quote(quote() if data is None else data, papers or collateral(), at=at, root=root)

    return run


@pytest.fixture(scope="session")
def verdict(
    verify: Callable[..., Verdict], quote: Callable[..., bytes], collateral: Callable[..., Collateral]
) -> Callable[..., Verdict]:
    """The verdict on a real simulated quote; ``tcb_status`` is that of the machine."""

    def make(tcb_status: str = "UpToDate", **fields: Any) -> Verdict:
        advisories = () if tcb_status == "UpToDate" else ("SIMULATED-SA-00001",)
        return verify(quote(**fields), collateral(tcb_status=tcb_status, advisory_ids=advisories))

    return make


@pytest.fixture(scope="session")
def policy(vendor: SimulatedVendor) -> Callable[..., Policy]:
    """A policy for identities of one's choice on the vendor's platforms that are up to date, with other fields."""
    code = Identity(name="code", mr_enclave=b"\x11" * 32, receives=("model/digits",))

    def make(*identities: Identity, **fields: Any) -> Policy:
        sound = {"roots": (vendor.root_name,), "tcb_statuses": (TcbStatus.UP_TO_DATE,)}
        return Policy(**(sound | fields), identities=identities or (code,))

    return make


@pytest.fixture(scope="session")
def forged() -> Callable[..., Verdict]:
    """A verdict that verify_quote never gave, for what only a bug could do."""

    def make(verdict: Verdict, kind: type[Verdict] | None = None, **changes: Any) -> Verdict:
        values = {field.name: getattr(verdict, field.name) for field in fields(verdict)}
        return (kind or type(verdict))(mint=_MINT, **(values | changes))

    return make


KINDS = ("SGX v3", "TDX v4", "TDX v5")


@dataclass(frozen=True)
class World:
    """One kind of quote: sound ones with sound collateral, and whatever differs from them in one respect.

    The negatives (test_negatives_*.py) are made of this, here and where Intel's own library judges them too.
    """

    kind: str
    vendor: SimulatedVendor
    stranger: SimulatedVendor

    @property
    def tdx(self) -> bool:
        return self.kind.startswith("TDX")

    @property
    def enclave(self) -> QuotingEnclave:
        """The quoting enclave that quotes of this kind are by."""
        return TD_QUOTING_ENCLAVE if self.tdx else QuotingEnclave()

    def report(self, **changes: Any) -> SgxReport | TdReport:
        if not self.tdx:
            sound = Attributes(Attributes.INIT | Attributes.MODE64BIT, 3)
            blank = SgxReport.from_bytes(bytes(384))
            return replace(blank, cpu_svn=self.vendor.cpu_svn, attributes=sound, mr_enclave=b"\x11" * 32, **changes)
        svn = bytes(self.vendor.TEE_TCB_SVN)
        # SEPT_VE_DISABLE is what no guest may do without.
        fields = {"tee_tcb_svn": svn, "td_attributes": (1 << 28).to_bytes(8, "little"), "mr_td": b"\x11" * 48}
        if self.kind == "TDX v4":
            return replace(TdReport.from_bytes(bytes(584)), **(fields | changes))
        return replace(TdReport.from_bytes(bytes(648)), **(fields | {"tee_tcb_svn2": svn} | changes))

    def debug_report(self) -> SgxReport | TdReport:
        if self.tdx:
            return self.report(td_attributes=(1 << 28 | 1).to_bytes(8, "little"))
        flags = Attributes.INIT | Attributes.MODE64BIT | Attributes.DEBUG
        return replace(self.report(), attributes=Attributes(flags, 3))

    def quote(self, report: SgxReport | TdReport | None = None, **recipe: Any) -> bytes:
        return make_quote(self.vendor, report or self.report(), QuoteRecipe(**recipe))

    def with_chain(self, *parties: Party) -> bytes:
        return self.quote(pck_chain=parties)

    def with_pck(self, machine: PckIdentity | None = None, **changes: Any) -> bytes:
        """A quote with a PCK certificate of one's own making, in a chain that is sound otherwise."""
        arguments = {"issuer": self.vendor.pck_ca(), "key": self.vendor.key("pck platform")} | changes
        pck = self.vendor.issue_pck(machine or self.vendor.machine(), **arguments)
        return self.with_chain(pck, self.vendor.pck_ca(), self.vendor.root)

    @functools.cached_property
    def sound(self) -> bytes:
        return self.quote()

    @functools.cached_property
    def at(self) -> dict[str, int]:
        """Where the parts of the sound quote begin."""
        quote = parse_quote(self.sound)
        signed = len(quote.signed)
        outer = 0 if quote.header.version == 3 else 6
        places = {"version": 0, "key type": 2, "TEE type": 4, "SVNs": 8, "vendor": 12, "user data": 28, "body": 48}
        places["body"] = signed - len(quote.body.to_bytes())
        places |= {"size": signed, "signature": signed + 4, "key": signed + 68, "outer type": signed + 132}
        report = signed + 132 + outer
        places |= {"QE report": report, "QE signature": report + 384, "auth size": report + 448, "auth": report + 450}
        kind = report + 450 + len(quote.qe_auth_data)
        return places | {"certification type": kind, "certification size": kind + 2, "certificates": kind + 6}

    def patched(self, place: str | int, value: bytes, quote: bytes | None = None) -> bytes:
        """The sound quote, or another, with other bytes from a place on."""
        data = bytearray(self.sound if quote is None else quote)
        at = place if isinstance(place, int) else self.at[place]
        data[at : at + len(value)] = value
        return bytes(data)

    def papers(self, **recipe: Any) -> Collateral:
        return self.vendor.collateral(NOW, CollateralRecipe(**({"tee": "tdx" if self.tdx else "sgx"} | recipe)))

    def tcb_info(self, **changes: object) -> Collateral:
        return self.papers(tcb_info=DocumentRecipe(changes=changes))

    def qe_identity(self, **changes: object) -> Collateral:
        return self.papers(qe_identity=DocumentRecipe(changes=changes))

    def level(self, status: str = "UpToDate", *, pce_svn: int = 0, **more: int) -> dict[str, Any]:
        """The machine's own TCB level, or one higher: ``c3=1`` in component 3, ``t2=1`` in TDX component 2."""
        components, tdx = list(self.vendor.COMPONENTS), [0, 0, *self.vendor.TEE_TCB_SVN[2:]]
        for name, value in more.items():
            (components if name[0] == "c" else tdx)[int(name[1:])] += value
        pce = self.vendor.PCE_SVN + pce_svn
        return tcb_level(components, pce, status, tdx_components=tdx if self.tdx else None)

    def levels(self, *rows: dict[str, Any]) -> Collateral:
        return self.tcb_info(tcbLevels=list(rows))

    def leaf(self, name: str, issuer: Party, *, validity: Validity | None = None, ca: bool = False) -> Party:
        """A certificate with a key of its own, of any name, below any issuer."""
        return issue(
            name,
            self.vendor.key(f"leaf {name}"),
            issuer,
            validity=validity or self.vendor.validity(7),
            crl_url="https://simulated.invalid/x.der",
            path_length=0 if ca else None,
        )

    @functools.cached_property
    def sound_papers(self) -> Collateral:
        return self.papers()

    def verify(self, quote: bytes | None = None, papers: Collateral | None = None, *, at: int = NOW) -> Verdict:
        """The verdict; what is not given is sound."""
        trusted = SimulatedRoot(self.vendor.root_certificate_der)
        data = self.sound if quote is None else quote
        return verify_quote(data, papers or self.sound_papers, at=at, root=trusted)

    def refused(self, quote: bytes | None = None, papers: Collateral | None = None) -> str:
        """The name of the check that refuses; the test fails if what is sound is refused as well, or this is not."""
        assert self.verify().status is TcbStatus.UP_TO_DATE
        with pytest.raises(EvidenceError) as refusal:
            self.verify(quote, papers)
        assert refusal.value.problem
        assert refusal.value.remedy
        assert "\n" not in str(refusal.value)
        return refusal.value.check

    def accepted_alone(self, quote: bytes | None = None, papers: Collateral | None = None) -> bool:
        """Whether dcap-qvl without this layer accepts."""
        bundle = dcap_qvl.QuoteCollateralV3.from_json((papers or self.sound_papers).to_json())
        data = self.sound if quote is None else quote
        try:
            dcap_qvl.verify_with_root_ca(data, bundle, self.vendor.root_certificate_der, NOW)
        except ValueError:
            return False
        return True


@pytest.fixture(scope="session")
def worlds(vendor: SimulatedVendor, stranger: SimulatedVendor) -> dict[str, World]:
    """By kind of quote."""
    return {kind: World(kind, vendor, stranger) for kind in KINDS}


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    """Each kind of quote in turn."""
    return worlds[request.param]


@dataclass(frozen=True, kw_only=True)
class Negative:
    """One respect in which evidence is not sound.

    Attributes:
        made: what differs, in one's kind of quote: a quote, collateral, or both.
        check: the name of the check that refuses it.
        kinds: of quotes that it applies to.
        alone: whether dcap-qvl without this layer accepts it, or for which kinds of quotes.
        intel: why Intel's library, which tests/interop asks about those for SGX, accepts it; empty where it refuses.
    """

    made: Callable[[World], bytes | Collateral | tuple[bytes, Collateral]]
    check: str
    kinds: tuple[str, ...] = KINDS
    alone: bool | tuple[str, ...] = False
    intel: str = ""

    def parts(self, world: World) -> tuple[bytes | None, Collateral | None]:
        """Quote and collateral; None for what is sound."""
        made = self.made(world)
        if isinstance(made, tuple):
            return made
        return (made, None) if isinstance(made, bytes) else (None, made)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take ``negative`` run for every one in their module's CASES, and every kind of quote it applies to."""
    if "negative" in metafunc.fixturenames:
        rows = [(kind, name) for name, case in metafunc.module.CASES.items() for kind in Negative(**case).kinds]
        metafunc.parametrize(("kind", "name"), rows, ids=[f"{kind}, {name}" for kind, name in rows])


@pytest.fixture
def negative(request: pytest.FixtureRequest, worlds: dict[str, World], kind: str, name: str) -> Callable[[], None]:
    """Checks that a negative is refused by exactly the check that it names, and what is sound is not."""

    def hold() -> None:
        case = Negative(**request.module.CASES[name])
        quote, papers = case.parts(worlds[kind])
        assert worlds[kind].refused(quote, papers) == case.check
        alone = case.alone if isinstance(case.alone, bool) else kind in case.alone
        assert worlds[kind].accepted_alone(quote, papers) == alone

    return hold
