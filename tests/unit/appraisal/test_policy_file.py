from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.policy_file import dump_policy, load_policy, parse_policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.errors import InputError

GOOD = """\
version: 1
roots:
  - intel
tcb_statuses: [UpToDate, SWHardeningNeeded]
identities:
  - name: digits replica
    mr_enclave: "{m}"
    receives: [model/digits]
  - name: signed by the owner
    mr_signer: {s}
    isv_prod_id: 7
    min_isv_svn: 3
""".format(m="1" * 64, s="AB" * 32)


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    assert load_policy(path) == Policy(
        roots=("intel",),
        tcb_statuses=(TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED),
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
        ("UpToDate, SW", "Revoked, SW", "yaml.value", "line 4, field tcb_statuses[0]", "'UpToDate'"),
        ("UpToDate, SWHardeningNeeded", "", "policy.tcb_statuses", "line 4, field tcb_statuses", "never anyone"),
        ("UpToDate, SW", "SWHardeningNeeded, SW", "policy.duplicate", "line 4, field tcb_statuses[1]", "status"),
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
    assert old in GOOD
    with pytest.raises(InputError) as caught:
        parse_policy(GOOD.replace(old, new, 1).encode(), "policy.yaml")
    assert caught.value.check == check
    assert f"policy.yaml {place}" in str(caught.value) or place in str(caught.value)
    assert words in str(caught.value)


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


names = st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable() and t == t.strip())
u16 = st.integers(0, 0xFFFF)
receives = st.lists(st.from_regex(r"model/[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True), unique=True, max_size=3).map(
    tuple
)
by_code = st.builds(
    Identity,
    name=names,
    mr_enclave=st.binary(min_size=32, max_size=32),
    mr_signer=st.none() | st.binary(min_size=32, max_size=32),
    isv_prod_id=st.none() | u16,
    min_isv_svn=st.none() | u16,
    debug=st.booleans(),
    receives=receives,
)
by_signer = st.builds(
    Identity,
    name=names,
    mr_signer=st.binary(min_size=32, max_size=32),
    isv_prod_id=u16,
    min_isv_svn=u16,
    debug=st.booleans(),
    receives=receives,
)
policies = st.builds(
    Policy,
    roots=st.lists(
        st.just("intel") | st.binary(min_size=32, max_size=32).map(lambda b: "simulated:" + b.hex()),
        unique=True,
        min_size=1,
        max_size=3,
    ).map(tuple),
    tcb_statuses=st.lists(st.sampled_from(TcbStatus), unique=True, min_size=1).map(tuple),
    identities=st.lists(
        by_code | by_signer, min_size=1, max_size=4, unique_by=(lambda i: i.name, lambda i: i.mr_enclave or i.name)
    ).map(tuple),
)


@given(policies)
def test_what_is_dumped_reads_as_the_same_policy(policy: Policy) -> None:
    again = parse_policy(dump_policy(policy).encode(), "policy.yaml")
    assert again == policy
    assert again.sha256 == policy.sha256


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_policy(data, "policy.yaml")
