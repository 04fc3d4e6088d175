"""A published file is believed only when all of it holds: signature, statement, the log's entry, and one spelling."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.appraisal.published import Measurements
from ensconce.audit.entry import canonical
from ensconce.errors import EnsconceError, EvidenceError, InputError, IntegrityError
from ensconce.publication.dsse import MAX_PAYLOAD, PAYLOAD_TYPE, pae
from ensconce.publication.file import MAX_FILE, PublishedFile, parse_published
from ensconce.publication.statement import PREDICATE_TYPE, parse_statement, statement_bytes

CODE, OTHER = bytes(range(32)), bytes(range(1, 33))


def refusal(act: Callable[[], object]) -> EnsconceError:
    with pytest.raises(EnsconceError) as caught:
        act()
    return caught.value


def read(publisher: Any, value: object) -> PublishedFile:
    return parse_published(canonical(value) + b"\n", [publisher.public])


def value_of(file: PublishedFile) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.to_bytes())
    return value


def signed(publisher: Any, payload: bytes, payload_type: str = PAYLOAD_TYPE, message: bytes | None = None) -> Any:
    """An envelope whose signature is of ``message``."""
    message = pae(payload_type.encode(), payload) if message is None else message
    signature = base64.b64encode(publisher.key.sign(message)).decode()
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": "", "sig": signature}],
    }


def test_what_is_signed_is_the_specifications_encoding() -> None:
    # The example in protocol.md, "Test Vectors".
    assert pae(b"http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae(b"", b"") == b"DSSEv1 0  0 "


def test_a_file_is_read_as_it_was_written(publisher: Any) -> None:
    file = publisher.publish(publisher.measurements(CODE))
    assert parse_published(file.to_bytes(), [publisher.public]) == file
    statement = json.loads(file.envelope.body())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == PREDICATE_TYPE
    assert statement["subject"] == [{"digest": {"sha256": CODE.hex()}, "name": f"enclave {CODE.hex()[:8]}.sig"}]


def test_any_one_of_several_publishers(publisher: Any) -> None:
    data = publisher.publish(publisher.measurements(CODE)).to_bytes()
    other = Ed25519PrivateKey.generate().public_key()
    assert parse_published(data, [other, publisher.public]).publisher == publisher.public
    for trusted in ([other], []):
        error = refusal(lambda trusted=trusted: parse_published(data, trusted))
        assert (type(error), error.check) == (EvidenceError, "published.signature")


def test_a_changed_statement_is_refused(publisher: Any) -> None:
    value = value_of(publisher.publish(publisher.measurements(CODE)))
    other = base64.b64encode(statement_bytes(publisher.measurements(OTHER))).decode()
    value["envelope"]["payload"] = other
    assert refusal(lambda: read(publisher, value)).check == "published.signature"


def test_a_signature_of_anything_else_is_none(publisher: Any) -> None:
    body = statement_bytes(publisher.measurements(CODE))
    value = value_of(publisher.publish(publisher.measurements(CODE)))
    other_type = "application/vnd.in-toto+jso"
    for message in (
        body,  # without PAE
        pae(other_type.encode(), body),
        # The same bytes after DSSEv1, cut elsewhere: the lengths are part of what is signed.
        pae(PAYLOAD_TYPE.encode() + b" %d" % len(body), body),
        b"DSSEv1 028 %s %d %s" % (PAYLOAD_TYPE.encode(), len(body), body),
    ):
        value["envelope"] = signed(publisher, body, message=message)
        assert refusal(lambda: read(publisher, value)).check == "published.signature"
    value["envelope"] = signed(publisher, body, other_type)
    assert refusal(lambda: read(publisher, value)).check == "published.envelope"


def test_a_log_entry_is_no_statement_and_the_other_way_round(publisher: Any) -> None:
    """The owner's key signs both; neither stands for the other."""
    file = publisher.publish(publisher.measurements(CODE))
    value = value_of(file)
    value["envelope"] = signed(publisher, file.proof.entry.to_line())
    assert refusal(lambda: read(publisher, value)).check == "published.statement"


def test_a_proof_of_another_entry_is_refused(publisher: Any) -> None:
    first = publisher.publish(publisher.measurements(CODE))
    second = publisher.publish(publisher.measurements(OTHER, serial=2))
    value = value_of(second) | {"proof": value_of(first)["proof"]}
    assert refusal(lambda: read(publisher, value)).check == "published.proof"
    for more in ({"event": "policy.applied"}, {"serial": 4}, {"sha256": "00" * 32}):
        file = publisher.publish(publisher.measurements(CODE, serial=3), **more)
        assert refusal(lambda file=file: read(publisher, value_of(file))).check == "published.proof"


def test_a_proof_that_does_not_hold_is_refused(publisher: Any) -> None:
    publisher.publish(publisher.measurements(CODE))
    value = value_of(publisher.publish(publisher.measurements(CODE, serial=2)))
    bent = json.loads(json.dumps(value))
    bent["proof"]["path"][0] = "00" * 32
    assert refusal(lambda: read(publisher, bent)).check == "merkle.inclusion"
    bent = json.loads(json.dumps(value))
    bent["proof"]["head"]["size"] += 1
    error = refusal(lambda: read(publisher, bent))
    assert (type(error), error.check) == (IntegrityError, "audit.head")


def test_a_log_of_somebody_else_is_refused(publisher: Any, tmp_path: Any) -> None:
    other = type(publisher)(tmp_path / "other", seed=8)
    value = value_of(publisher.publish(publisher.measurements(CODE)))
    value["proof"] = value_of(other.publish(other.measurements(CODE)))["proof"]
    error = refusal(lambda: parse_published(canonical(value) + b"\n", [publisher.public, other.public]))
    assert error.check == "audit.key"


def test_one_spelling_and_no_more_members(publisher: Any) -> None:
    data = publisher.publish(publisher.measurements(CODE)).to_bytes()
    value = json.loads(data)
    for bent, check in (
        (data[:-1], "file"),
        (data + b"\n", "file"),
        (json.dumps(value).encode() + b"\n", "file"),
        (data.replace(b'{"continues":[]', b'{"continues":[],"continues":[]'), "file"),
        (canonical(value | {"more": 1}) + b"\n", "file"),
        (canonical(value | {"envelope": value["envelope"] | {"more": 1}}) + b"\n", "envelope"),
        (canonical(value | {"envelope": None}) + b"\n", "envelope"),
        (canonical(value | {"proof": {"head": 1, "consistency": 2}}) + b"\n", None),
        (canonical(value | {"proof": None}) + b"\n", "proof"),
        (canonical(value | {"continues": [1]}) + b"\n", "proof"),
        (canonical(value | {"continues": [None] * 129}) + b"\n", "proof"),
        (b"[]\n", "file"),
        (b"\xff", "file"),
        (b"[" * 100_000, "file"),
        (b" " * (MAX_FILE + 1), "file"),
    ):
        error = refusal(lambda bent=bent: parse_published(bent, [publisher.public]))
        assert check is None or error.check == f"published.{check}", (bent[:80], error)


def test_base64_has_one_spelling(publisher: Any) -> None:
    value = value_of(publisher.publish(publisher.measurements(CODE)))
    payload = value["envelope"]["payload"]
    for bent in (payload + "\n", payload.replace("+", "-").replace("/", "_") + "=", payload + "====", "A"):
        value["envelope"]["payload"] = bent
        assert refusal(lambda: read(publisher, value)).check == "published.envelope"


def test_statements_say_one_thing(publisher: Any) -> None:
    good = json.loads(statement_bytes(publisher.measurements(CODE)))
    predicate = good["predicate"]
    for bent in (
        json.dumps(good).encode(),
        canonical(good | {"more": 1}),
        canonical(good | {"_type": "https://in-toto.io/Statement/v0.1"}),
        canonical(good | {"predicateType": "https://slsa.dev/provenance/v1"}),
        canonical(good | {"subject": []}),
        canonical(good | {"predicate": predicate | {"more": 1}}),
        canonical(good | {"predicate": predicate | {"serial": "1"}}),
        canonical(good | {"predicate": predicate | {"serial": 0}}),
        canonical(good | {"predicate": predicate | {"expires": predicate["created"]}}),
        canonical(good | {"predicate": predicate | {"expires": "2099-01-01T00:00:00+00:00"}}),
        canonical(good | {"predicate": predicate | {"service": "no domain"}}),
        canonical(good | {"predicate": predicate | {"enclaves": predicate["enclaves"] * 2}}),
        canonical(good | {"predicate": None}),
        canonical(good).replace(b'"serial":1', b'"serial":1,"serial":1'),
        b"null",
        b"[" * 60_000,
        b" " * (MAX_PAYLOAD + 1),
    ):
        error = refusal(lambda bent=bent: parse_statement(bent))
        assert (type(error), error.check) == (EvidenceError, "published.statement"), bent[:80]


def test_a_list_that_no_log_would_take_is_not_signed(publisher: Any) -> None:
    images = [{"name": f"{'x' * 190}{n}", "sha256": f"{n:064x}"} for n in range(32)]
    enclaves = [
        each.model_dump(mode="json", exclude_none=True) | {"images": images}
        for each in publisher.measurements(*(bytes([n]) * 32 for n in range(10))).enclaves
    ]
    error = refusal(lambda: statement_bytes(publisher.measurements(enclaves=enclaves)))
    assert (type(error), error.check) == (InputError, "published.size")


TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=40)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
ENCLAVES = st.fixed_dictionaries(
    {
        "name": TEXT,
        "mr_enclave": HEX,
        "mr_signer": HEX,
        "isv_prod_id": st.integers(0, 0xFFFF),
        "isv_svn": st.integers(0, 0xFFFF),
        "sigstruct": HEX,
        "published": st.just("2026-01-01T00:00:00Z"),
        "images": st.lists(st.fixed_dictionaries({"name": TEXT, "sha256": HEX}), max_size=3),
    }
)
LISTS = st.fixed_dictionaries(
    {
        "service": st.just("d.test"),
        "serial": st.integers(1, 2**31 - 1),
        "created": st.just("2026-01-01T00:00:00Z"),
        "expires": st.just("2026-02-01T00:00:00Z"),
        "enclaves": st.lists(
            ENCLAVES, max_size=4, unique_by=(lambda each: each["name"], lambda each: each["mr_enclave"])
        ),
    }
)


@given(LISTS)
@settings(max_examples=60)
def test_statements_survive_a_round_trip(value: dict[str, Any]) -> None:
    measurements = Measurements.model_validate_json(json.dumps(value))
    assert parse_statement(statement_bytes(measurements)) == measurements


def test_no_changed_byte_is_believed(publisher: Any) -> None:
    good = publisher.publish(publisher.measurements(CODE))
    data = good.to_bytes()

    @given(st.integers(0, len(data) - 1), st.integers(1, 255))
    def change(at: int, by: int) -> None:
        try:
            file = parse_published(bytes([*data[:at], data[at] ^ by, *data[at + 1 :]]), [publisher.public])
        except EnsconceError:
            return
        # Nobody signed the hint which key it was.
        assert (file.measurements, file.proof) == (good.measurements, good.proof)
        assert file.envelope.signatures[0].sig == good.envelope.signatures[0].sig

    change()
