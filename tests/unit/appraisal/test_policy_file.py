from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.policy import (
    Advisories,
    AttributeMasks,
    Identity,
    Owners,
    Policy,
    StatusUntil,
    TrustDomain,
    WireV1,
)
from ensconce.appraisal.policy_file import load_policy, parse_policy
from ensconce.appraisal.policy_mask import Mask
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError

GOOD = """\
version: 1
roots:
  - intel
tcb_statuses: [UpToDate, {{status: SWHardeningNeeded, until: 2027-03-31}}]
identities:
  - name: digits replica
    mr_enclave: "{m}"
    receives: [model/digits]
  - name: signed by the owner
    mr_signer: {s}
    isv_prod_id: 7
    min_isv_svn: 3
""".format(m="1" * 64, s="AB" * 32)

EXCEPTION = "{status: SWHardeningNeeded, until: 2027-03-31}"
KEY = "ed25519:" + "ab" * 32

FULL = f"""\
version: 1
serial: 7
service: digits.example.test
owners:
  required: 2
  keys:
    - {KEY}
    - ed25519:{"cd" * 32}
roots: [intel]
tcb_statuses: [UpToDate]
advisories:
  accept: [INTEL-SA-00615]
  refuse: [INTEL-SA-00828]
min_tcb_evaluation_data_number: 17
platforms:
  - {"0a" * 16}
identities:
  - name: enclave
    mr_enclave: {"1a" * 32}
    attributes:
      flags: {{mask: 0xffffffffffffffff, value: 0x5}}
      xfrm: {{mask: 0x1b, value: 0x3}}
      misc_select: {{mask: 0xffffffff, value: 0x0}}
    receives: [model/digits, secret/license]
    wire_v1: {{secret: model/digits/1, form: hex}}
  - name: guest
    tdx:
      mr_td: {"aa" * 48}
      rtmr1: {"bb" * 48}
      mr_owner: {"cc" * 48}
      td_attributes: {{mask: 0x8000000000000000, value: 0x0}}
    receives: [secret/license]
"""


def names_the_mistake(policy: str, old: str, new: str, check: str, place: str, words: str) -> None:
    """With ``new`` in place of ``old`` the policy is refused, for this reason, at this place, in such words."""
    assert old in policy
    with pytest.raises(InputError) as caught:
        parse_policy(policy.replace(old, new, 1).encode(), "policy.yaml")
    assert caught.value.check == check
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_every_field() -> None:
    assert parse_policy(FULL.encode(), "policy.yaml") == Policy(
        serial=7,
        service="digits.example.test",
        owners=Owners(required=2, keys=(KEY, "ed25519:" + "cd" * 32)),
        roots=("intel",),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        advisories=Advisories(accept=("INTEL-SA-00615",), refuse=("INTEL-SA-00828",)),
        min_tcb_evaluation_data_number=17,
        platforms=(b"\x0a" * 16,),
        identities=(
            Identity(
                name="enclave",
                mr_enclave=b"\x1a" * 32,
                attributes=AttributeMasks(flags=Mask(2**64 - 1, 5), xfrm=Mask(0x1B, 3), misc_select=Mask(2**32 - 1, 0)),
                receives=("model/digits", "secret/license"),
                wire_v1=WireV1(secret="model/digits/1", form="hex"),
            ),
            Identity(
                name="guest",
                tdx=TrustDomain(
                    mr_td=b"\xaa" * 48, rtmr1=b"\xbb" * 48, mr_owner=b"\xcc" * 48, td_attributes=Mask(1 << 63, 0)
                ),
                receives=("secret/license",),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "check", "place", "words"),
    [
        ("serial: 7", "serial: 0", "yaml.value", "line 2, field serial", "greater than"),
        ("serial: 7", "serial: 2147483648", "yaml.value", "line 2, field serial", "less than"),
        ("digits.example.test", "Digits", "yaml.value", "line 3, field service", "lower case"),
        ("required: 2", "required: 3", "policy.owners", "line 4, field owners", "required: 3 of 2"),
        ("required: 2", "required: 0", "yaml.value", "line 5, field owners.required", "greater than"),
        (KEY, KEY.upper(), "yaml.value", "line 7, field owners.keys[0]", "64 hexadecimal digits"),
        ("cd" * 32, "ab" * 32, "policy.duplicate", "line 8, field owners.keys[1]", "same key as on line 7"),
        ("INTEL-SA-00828", "INTEL-SA-0828", "policy.value", "line 11, field advisories", "such as INTEL-SA-00615"),
        ("INTEL-SA-00828", "INTEL-SA-00615", "policy.duplicate", "line 11, field advisories", "keep one"),
        ("  accept: [INTEL-SA-00615]\n  refuse: [INTEL-SA-00828]", "  {}", "policy.advisories", "line 11", "accept or"),
        ("number: 17", "number: 0", "yaml.value", "line 14, field min_tcb_evaluation_data_number", "greater than"),
        ("0a" * 16, "0a" * 15, "yaml.value", "line 16, field platforms[0]", "32 hexadecimal digits"),
        ("0a" * 16, f"{'0a' * 16}\n  - {'0A' * 16}", "policy.duplicate", "line 17, field platforms[1]", "line 16"),
        (f"platforms:\n  - {'0a' * 16}", "platforms: []", "policy.platforms", "line 15, field platforms", "never"),
        ("value: 0x5", "value: 5", "yaml.value", "line 21, field identities[0].attributes.flags.value", "string"),
        ("value: 0x5", "value: 0xg", "yaml.value", "line 21, field identities[0].attributes.flags.value", "0x and"),
        (
            "value: 0x3",
            "value: 0x4",
            "policy.value",
            "line 22, field identities[0].attributes.xfrm",
            "bits of the mask",
        ),
        ("0x1b, value: 0x3", "0x0, value: 0x0", "policy.value", "line 22", "at least one bit"),
        ("0xffffffff,", "0x1ffffffff,", "policy.value", "line 20, field identities[0].attributes", "32 bits"),
        ("secret/license]\n    wire", "secret/License]\n    wire", "policy.value", "line 18", "secret/<name>"),
        ("model/digits/1", "model/digits", "policy.value", "line 25, field identities[0].wire_v1", "<version>"),
        ("model/digits/1", "model/other/1", "policy.wire_v1", "line 25, field identities[0].wire_v1", "receives"),
        ("form: hex", "form: base64", "yaml.value", "line 25, field identities[0].wire_v1.form", "'raw'"),
        (f"      mr_td: {'aa' * 48}\n", "", "yaml.missing_field", "field identities[1].tdx.mr_td", "rtmr0"),
        ("bb" * 48, "bb" * 32, "yaml.value", "line 29, field identities[1].tdx.rtmr1", "48 bytes"),
        ("name: guest", f"name: guest\n    mr_signer: {'dd' * 32}", "policy.identity", "line 26", "at once"),
    ],
)
def test_mistakes_in_every_field_are_named(old: str, new: str, check: str, place: str, words: str) -> None:
    names_the_mistake(FULL, old, new, check, place, words)


def test_every_field_is_dumped() -> None:
    policy = parse_policy(FULL.encode(), "policy.yaml")
    assert parse_policy(dump_policy(policy).encode(), "policy.yaml") == policy


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert load_policy(path) == Policy(
        roots=("intel",),
        tcb_statuses=(
            TcbStatus.UP_TO_DATE,
            StatusUntil(TcbStatus.SW_HARDENING_NEEDED, datetime.date(2027, 3, 31)),
        ),
        identities=(
            Identity(name="digits replica", mr_enclave=b"\x11" * 32, receives=("model/digits",)),
            Identity(name="signed by the owner", mr_signer=b"\xab" * 32, isv_prod_id=7, min_isv_svn=3),
        ),
    )


@pytest.mark.parametrize(
    ("old", "new", "check", "place", "words"),
    [
        ("receives:", "recieves:", "yaml.unknown_field", "line 8, field identities[0].recieves", "'receives'"),
        ("version: 1", "version: 1\nallow_debug: true", "yaml.unknown_field", "line 2, field allow_debug", "roots"),
        ("version: 1", "version: 2", "yaml.value", "line 1, field version", "1"),
        ("version: 1\n", "", "yaml.missing_field", "line 1, field version", "roots"),
        ("1" * 64, "1" * 63, "yaml.value", "line 7, field identities[0].mr_enclave", "63 characters"),
        ("1" * 64, "g" * 64, "yaml.value", "line 7, field identities[0].mr_enclave", "64 hexadecimal digits"),
        (f'"{"1" * 64}"', "any", "yaml.value", "line 7, field identities[0].mr_enclave", "64 hexadecimal digits"),
        (f'"{"1" * 64}"', "12", "yaml.value", "line 7, field identities[0].mr_enclave", "quotes"),
        ("isv_prod_id: 7", "isv_prod_id: '7'", "yaml.value", "line 11, field identities[1].isv_prod_id", "integer"),
        ("isv_prod_id: 7", "isv_prod_id: 70000", "yaml.value", "line 11, field identities[1].isv_prod_id", "65535"),
        ("    min_isv_svn: 3\n", "", "policy.identity", "line 9, field identities[1]", "min_isv_svn"),
        (f'    mr_enclave: "{"1" * 64}"\n', "", "policy.identity", "line 6, field identities[0]", "mr_enclave"),
        ("- intel", "- amd", "yaml.value", "line 3, field roots[0]", "intel, or simulated:"),
        ("- intel", "- intel\n  - intel", "policy.duplicate", "line 4, field roots[1]", "line 3"),
        ("roots:\n  - intel", "roots: []", "policy.roots", "line 2, field roots", "never anyone"),
        ("[UpToDate,", "[Revoked,", "yaml.value", "line 4, field tcb_statuses[0]", "'UpToDate'"),
        (f"[UpToDate, {EXCEPTION}]", "[]", "policy.tcb_statuses", "line 4, field tcb_statuses", "never anyone"),
        (EXCEPTION, "UpToDate", "policy.duplicate", "line 4, field tcb_statuses[1]", "status"),
        (EXCEPTION, "OutOfDate", "policy.tcb_statuses", "line 4, field tcb_statuses[1]", "until: YYYY-MM-DD"),
        (EXCEPTION, "{status: OutOfDate}", "yaml.missing_field", "line 4, field tcb_statuses[1].until", "status"),
        (
            EXCEPTION,
            "{status: OutOfDate, till: x}",
            "yaml.unknown_field",
            "line 4, field tcb_statuses[1].till",
            "until",
        ),
        (EXCEPTION, "{status: UpToDate, until: 2027-03-31}", "policy.duplicate", "tcb_statuses[1]", "UpToDate"),
        (f"UpToDate, {EXCEPTION}", "{status: UpToDate, until: 2027-03-31}", "policy.value", "line 4", "no end"),
        ("2027-03-31", "2027-02-29", "yaml.value", "line 4, field tcb_statuses[1].until", "YYYY-MM-DD"),
        ("2027-03-31", "20270331", "yaml.value", "line 4, field tcb_statuses[1].until", "string"),
        ("2027-03-31", "2027-03-31T00:00:00Z", "yaml.value", "line 4, field tcb_statuses[1].until", "a day"),
        ("2027-03-31", "never", "yaml.value", "line 4, field tcb_statuses[1].until", "a day"),
        ("name: signed by the owner", "name: digits replica", "policy.duplicate", "field identities[1].name", "line 6"),
        ("model/digits", "model/digits/1", "policy.value", "line 6, field identities[0]", "without a version"),
        (
            "model/digits]",
            "model/digits]\n    debug: 'no'",
            "yaml.value",
            "line 9, field identities[0].debug",
            "boolean",
        ),
        ("model/digits]", "model/digits]\n    debug: no", "yaml.value", "line 9, field identities[0].debug", "boolean"),
    ],
)
def test_mistakes_are_named(old: str, new: str, check: str, place: str, words: str) -> None:
    names_the_mistake(GOOD, old, new, check, place, words)


def test_a_policy_without_identities_is_an_error_and_never_anyone() -> None:
    for tail in ("identities: []\n", "identities: {}\n", "identities:\n", ""):
        text = GOOD[: GOOD.index("identities:")] + tail
        with pytest.raises(InputError):
            parse_policy(text.encode(), "policy.yaml")


def test_the_same_measurement_twice_is_found_whatever_its_case() -> None:
    text = GOOD[: GOOD.index("  - name: signed")] + f"  - name: again\n    mr_enclave: {'aB' * 32}\n"
    text += f"  - name: once more\n    mr_enclave: {'Ab' * 32}\n"
    with pytest.raises(InputError, match="same measurement as on line 10"):
        parse_policy(text.encode(), "policy.yaml")


def test_a_dumped_policy_explains_itself() -> None:
    text = dump_policy(parse_policy(GOOD.encode(), "policy.yaml"))
    assert text.startswith("# ")
    assert "simulated root protects nothing" not in text
    simulated = Policy(
        roots=("simulated:" + "0" * 64,),
        tcb_statuses=(TcbStatus.UP_TO_DATE,),
        identities=(Identity(name="x", mr_enclave=bytes(32), debug=True),),
    )
    assert "simulated root protects nothing" in dump_policy(simulated)
    assert "debug: true  # the host can read" in dump_policy(simulated)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_policy(data, "policy.yaml")
