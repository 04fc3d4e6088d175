"""Lists that an identity has signed: by the real library, under an instance of the tests' own."""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.audit.entry import canonical
from ensconce.errors import EnsconceError, EvidenceError, InputError
from ensconce.publication.file import PublishedFile, parse_published
from ensconce.publication.remembered import admit
from ensconce.publication.sigstore import SigstoreIdentity, SigstoreTrust
from ensconce.publication.statement import statement_bytes
from ensconce.state.folder import FolderStore
from ensconce.trail import recorded, step

IDENTITY, ISSUER = "releases@example.test", "https://issuer.example.test"
WORKFLOW = "https://git.example.test/a/b/.github/workflows/release.yml@refs/heads/main"
CODE, OTHER = bytes(range(32)), bytes(range(1, 33))


def refusal(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


@pytest.fixture
def trust(root_file: Path) -> SigstoreTrust:
    return SigstoreTrust.load([SigstoreIdentity(IDENTITY, ISSUER)], root_file)


@pytest.fixture
def signed(publisher: Any, instance: Any) -> Callable[..., PublishedFile]:
    """Publishes a list with a bundle: of its own statement, unless told otherwise."""

    def make(*codes: bytes, by: Any = publisher, of: bytes | None = None, **options: Any) -> PublishedFile:
        names = options.pop("names", ())
        listed = {key: options.pop(key) for key in ("serial", "service", "log_key", "withdrawn") if key in options}
        listed.setdefault("log_key", f"ed25519:{by.public.public_bytes_raw().hex()}")
        measurements = by.measurements(*codes, **{key: each for key, each in listed.items() if each is not None})
        body = statement_bytes(measurements)
        bundle = instance.bundle(body if of is None else of, *names, **options)
        return replace(by.publish(measurements), bundle=bundle)

    return make


def read(file: PublishedFile, trust: SigstoreTrust, keys: Any = ()) -> PublishedFile:
    return parse_published(file.to_bytes(), keys, trust)


def test_an_identity_is_enough(signed: Any, trust: SigstoreTrust, publisher: Any, root_file: Path) -> None:
    with recorded() as trail, step("published"):
        file = read(signed(CODE), trust)
    assert (file.identity, file.publisher) == (SigstoreIdentity(IDENTITY, ISSUER), publisher.public)
    assert file.believed == f"{IDENTITY} ({ISSUER})"
    assert file.measurements.enclaves[0].mr_enclave == CODE.hex()
    held = {each.check: each for each in trail.steps[0].held}
    # A root of one's own is nothing that a report is silent about.
    assert "not Sigstore's" in held["published.sigstore"].rule
    assert str(root_file) in held["published.sigstore"].rule
    assert held["published.identity"].found == file.believed


def test_a_key_is_enough_and_comes_first(signed: Any, trust: SigstoreTrust, publisher: Any) -> None:
    file = signed(CODE)
    assert read(file, trust, [publisher.public]).identity is None
    assert parse_published(file.to_bytes(), [publisher.public]).bundle == file.bundle
    # A bundle that proves nothing takes nothing from the key.
    bent = replace(file, bundle={"mediaType": "nothing"})
    assert read(bent, trust, [publisher.public]).identity is None
    assert refusal(lambda: read(bent, trust)).check == "published.sigstore"


def test_without_a_bundle_or_a_believer(signed: Any, trust: SigstoreTrust, publisher: Any) -> None:
    file = publisher.publish(publisher.measurements(CODE))
    error = refusal(lambda: read(file, trust))
    assert (error.check, error.rule) == ("published.signature", f"signed by {IDENTITY} ({ISSUER})")
    assert refusal(lambda: parse_published(signed(CODE).to_bytes(), [])).check == "published.signature"
    for value in (None, [], "text", 1):
        data = canonical(json.loads(file.to_bytes()) | {"sigstore": value}) + b"\n"
        assert refusal(lambda data=data: parse_published(data, [publisher.public])).check == "published.file"


@pytest.mark.parametrize(
    "names",
    [
        ("somebody@example.test", ISSUER),
        (IDENTITY, "https://accounts.example.test"),
        (IDENTITY, ISSUER + "/"),
        (IDENTITY.upper(), ISSUER),
        (f"x{IDENTITY}", ISSUER),
        (f"https://x.test/{IDENTITY}", ISSUER),
        (ISSUER, IDENTITY),
    ],
)
def test_another_identity_or_issuer(names: tuple[str, str], signed: Any, trust: SigstoreTrust) -> None:
    error = refusal(lambda: read(signed(CODE, names=names), trust))
    assert (type(error), error.check) == (EvidenceError, "published.identity")
    assert names[0] in (error.found or "")


def test_one_of_several_identities(signed: Any, root_file: Path) -> None:
    two = [SigstoreIdentity(IDENTITY, ISSUER), SigstoreIdentity(WORKFLOW, "https://ci.example.test")]
    trust = SigstoreTrust.load(two, root_file)
    assert read(signed(CODE, names=(WORKFLOW, "https://ci.example.test")), trust).identity == two[1]
    # Each identity is one of its own issuer's.
    assert refusal(lambda: read(signed(CODE, names=(WORKFLOW, ISSUER)), trust)).check == "published.identity"


def test_a_bundle_over_something_else(signed: Any, trust: SigstoreTrust, publisher: Any) -> None:
    other = statement_bytes(publisher.measurements(OTHER))
    for payload in (other, b"", b"{}"):
        error = refusal(lambda payload=payload: read(signed(CODE, of=payload), trust))
        assert (error.check, "something else" in (error.found or "")) == ("published.sigstore", True)


def test_a_statement_of_another_kind(signed: Any, trust: SigstoreTrust, publisher: Any, instance: Any) -> None:
    """The identity signs provenance as well; the same bytes under the owner's key, and they are no list."""
    from ensconce.publication.dsse import seal

    provenance = canonical(
        json.loads(statement_bytes(publisher.measurements(CODE))) | {"predicateType": "https://slsa.dev/provenance/v1"}
    )
    file = replace(signed(CODE), envelope=seal(provenance, publisher.key), bundle=instance.bundle(provenance))
    error = refusal(lambda: read(file, trust))
    assert (error.check, "slsa.dev" in (error.found or "")) == ("published.statement", True)


def test_a_log_that_the_statement_does_not_name(
    signed: Any, trust: SigstoreTrust, publisher: Any, tmp_path: Path
) -> None:
    other = type(publisher)(tmp_path / "other", seed=8)
    named = f"ed25519:{other.public.public_bytes_raw().hex()}"
    zero = f"ed25519:{'00' * 32}"
    for key in (named, zero, None):
        error = refusal(lambda key=key: read(signed(CODE, log_key=key), trust))
        assert (type(error), error.check) == (EvidenceError, "published.log_key")
    # Nor is one believed that a trusted key wrote, with another's log.
    file = signed(CODE, log_key=named)
    assert refusal(lambda: parse_published(file.to_bytes(), [publisher.public])).check == "published.log_key"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("authority", "failed to build timestamp certificate chain"),
        ("certificate_log", "SCT"),
        ("log", "invalid log entry: checkpoint"),
    ],
)
def test_keys_of_another_instance(part: str, said: str, signed: Any, trust: SigstoreTrust, instance: Any) -> None:
    own = {name: getattr(instance, name) for name in ("authority", "certificate_log", "log")}
    mixed = type(instance)(**own | {part: getattr(type(instance)(), part)})
    file = signed(CODE)
    error = refusal(lambda: read(replace(file, bundle=mixed.bundle(file.envelope.body())), trust))
    assert error.check == "published.sigstore"
    assert said in (error.found or "")
    assert read(file, trust).identity is not None


def test_a_certificate_that_was_over_or_is_for_something_else(signed: Any, trust: SigstoreTrust) -> None:
    late = dt.datetime(2026, 11, 1, 12, 10, 1, tzinfo=dt.UTC)
    for options, said in (
        ({"recorded_at": late}, "cert is not valid at validation time"),
        ({"purpose": ExtendedKeyUsageOID.CLIENT_AUTH}, "code signing"),
    ):
        error = refusal(lambda options=options: read(signed(CODE, **options), trust))
        assert error.check == "published.sigstore"
        assert said in (error.found or "")


def test_a_bent_bundle(signed: Any, trust: SigstoreTrust, instance: Any) -> None:
    file = signed(CODE)
    other = instance.bundle(file.envelope.body())

    def bent(*path: Any, to: Any) -> PublishedFile:
        bundle = json.loads(json.dumps(file.bundle))
        at = bundle
        for each in path[:-1]:
            at = at[each]
        at[path[-1]] = to
        return replace(file, bundle=bundle)

    entry = ("verificationMaterial", "tlogEntries", 0)
    theirs = other["verificationMaterial"]["tlogEntries"][0]
    nothing = base64.b64encode(bytes(64)).decode()
    for path, to in (
        (("mediaType",), "application/vnd.dev.sigstore.bundle.v9+json"),
        (("more",), 1),
        (("verificationMaterial", "certificate", "rawBytes"), "AAAA"),
        (("verificationMaterial", "certificate", "rawBytes"), nothing),
        (("verificationMaterial", "tlogEntries"), []),
        (("verificationMaterial", "tlogEntries"), [theirs]),
        ((*entry, "canonicalizedBody"), theirs["canonicalizedBody"]),
        ((*entry, "inclusionProof", "rootHash"), nothing),
        ((*entry, "inclusionProof", "hashes"), []),
        ((*entry, "inclusionProof", "treeSize"), "0"),
        ((*entry, "inclusionProof", "logIndex"), str(2**64 - 1)),
        ((*entry, "inclusionProof", "checkpoint", "envelope"), "log\n2\n"),
        ((*entry, "inclusionProof", "checkpoint", "envelope"), theirs["inclusionProof"]["checkpoint"]["envelope"]),
        ((*entry, "inclusionPromise", "signedEntryTimestamp"), nothing),
        ((*entry, "integratedTime"), "1"),
        (("dsseEnvelope", "signatures", 0, "sig"), nothing),
        (("dsseEnvelope", "signatures", 0, "sig"), other["dsseEnvelope"]["signatures"][0]["sig"]),
        (("dsseEnvelope", "signatures"), []),
        (("dsseEnvelope", "payloadType"), "application/vnd.in-toto+jso"),
        (("dsseEnvelope",), None),
        (("mediaType",), "x" * (1 << 18)),
    ):
        error = refusal(lambda path=path, to=to: read(bent(*path, to=to), trust))
        assert (type(error), error.check) == (EvidenceError, "published.sigstore"), path
        assert len(str(error)) < 2000


def test_no_changed_byte_of_a_bundle_is_believed(signed: Any, trust: SigstoreTrust) -> None:
    file = signed(CODE)
    text = canonical(file.bundle)

    @given(st.integers(0, len(text) - 1), st.integers(0x20, 0x7E))
    @settings(max_examples=60)
    def change(at: int, to: int) -> None:
        try:
            bundle = json.loads(text[:at] + bytes([to]) + text[at + 1 :])
        except ValueError:
            return
        try:
            found = read(replace(file, bundle=bundle), trust)
        except EvidenceError:
            return
        # What the library does not look at, such as the spelling of Base64, changes nothing of what is believed.
        assert (found.identity, found.measurements) == (SigstoreIdentity(IDENTITY, ISSUER), file.measurements)

    change()


def test_no_way_back_for_identities_either(signed: Any, trust: SigstoreTrust, publisher: Any, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "state")
    first, second = signed(CODE), signed(OTHER, serial=2)
    admit(store, read(second, trust))
    assert refusal(lambda: admit(store, read(first, trust))).check == "published.rollback"
    fork = signed(CODE, serial=2)
    assert refusal(lambda: admit(store, read(fork, trust))).check == "published.fork"
    # The identity vouches for a second key all of a sudden.
    other = type(publisher)(tmp_path / "other", seed=8)
    error = refusal(lambda: admit(store, read(signed(CODE, by=other, serial=9), trust)))
    assert (type(error), error.check) == (EvidenceError, "published.key")
    elsewhere = type(publisher)(tmp_path / "elsewhere")
    for serial in (3, 4, 5, 6):
        forked = signed(CODE, by=elsewhere, serial=serial)
    assert refusal(lambda: admit(store, read(forked, trust))).check == "merkle.consistency"


def test_a_list_that_has_nothing_left(signed: Any, trust: SigstoreTrust) -> None:
    """The library signs and verifies no statement without a subject; everything withdrawn is one."""
    gone = [{"mr_enclave": CODE.hex(), "reason": "old", "withdrawn": "2026-02-01T00:00:00Z"}]
    file = read(signed(withdrawn=gone), trust)
    assert file.measurements.enclaves == ()
    assert json.loads(file.envelope.body())["subject"] == [{"digest": {"sha256": CODE.hex()}, "name": "withdrawn"}]


def test_another_root(signed: Any, root_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = SigstoreIdentity(IDENTITY, ISSUER)
    # Sigstore's own public root, as it comes with the library: nothing of the tests' instance verifies under it.
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    public = SigstoreTrust.load([identity])
    assert public.root == "Sigstore's public instance"
    assert refusal(lambda: read(signed(CODE), public)).check == "published.sigstore"
    for text in ("", "{}", root_file.read_text().replace("trustedroot+json", "other+json")):
        (tmp_path / "bent").write_text(text)
        error = refusal(lambda: SigstoreTrust.load([identity], tmp_path / "bent"))
        assert (type(error), error.check) == (InputError, "published.trust_root")
    assert refusal(lambda: SigstoreTrust.load([identity], tmp_path / "none")).check == "file.read"


def test_no_identity() -> None:
    for names in (("", ISSUER), (IDENTITY, ""), ("a\nb", ISSUER), ("x" * 401, ISSUER)):
        assert refusal(lambda names=names: SigstoreIdentity(*names)).check == "published.publisher"


def test_the_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sigstore.models", "sigstore"):
        monkeypatch.setitem(sys.modules, name, None)
    error = refusal(lambda: SigstoreTrust.load([SigstoreIdentity(IDENTITY, ISSUER)]))
    assert (type(error), error.check) == (InputError, "published.sigstore_missing")
    assert "ensconce[sigstore]" in (error.remedy or "")
