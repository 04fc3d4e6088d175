"""Gramine's signed manifest: what is read, what is refused, and that nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from ensconce.errors import InputError
from ensconce.platform.manifest import MAX_MANIFEST_SIZE, Mount, TrustedFile, parse_manifest

DIGEST = "ab" * 32


def document(**changes: Any) -> dict[str, Any]:
    sound: dict[str, Any] = {
        "libos": {"entrypoint": "/usr/bin/python3.11"},
        "loader": {
            "log_level": "error",
            "argv": ["python3", "-m", "x"],
            "env": {"A": "1", "B": {"value": "2"}},
            "entrypoint": {"uri": "file:/usr/lib/gramine/libsysdb.so", "sha256": DIGEST},
        },
        "sgx": {
            "debug": False,
            "max_threads": 64,
            "enclave_size": "2G",
            "isvprodid": 5,
            "isvsvn": 6,
            "trusted_files": [{"uri": "file:/usr/bin/python3.11", "sha256": DIGEST}],
            "allowed_files": ["file:models"],
            "remote_attestation": "dcap",
        },
        "fs": {"mounts": [{"path": "/lib", "uri": "file:/lib"}, {"path": "/tmp", "type": "tmpfs"}]},
        "sys": {"enable_sigterm_injection": True},
    }
    for name, value in changes.items():
        table, _, key = name.partition("__")
        sound[table] = sound[table] | {key: value} if key else value
    return sound


def parse(**changes: Any) -> Any:
    return parse_manifest(tomli_w.dumps(document(**changes)).encode())


def refused(data: bytes) -> InputError:
    with pytest.raises(InputError) as refusal:
        parse_manifest(data)
    assert refusal.value.rule
    return refusal.value


def test_every_value_is_read() -> None:
    data = tomli_w.dumps(document()).encode()
    manifest = parse_manifest(data)
    assert manifest.raw == data
    assert manifest.entrypoint == "/usr/bin/python3.11"
    assert manifest.argv == ("python3", "-m", "x")
    assert manifest.env == {"A": "1", "B": "2"}
    assert manifest.trusted_files == (
        TrustedFile("file:/usr/bin/python3.11", "/usr/bin/python3.11", bytes.fromhex(DIGEST)),
    )
    assert manifest.allowed_files == ("file:models",)
    assert manifest.mounts == (Mount("/lib", "file:/lib", "chroot"), Mount("/tmp", "", "tmpfs"))
    assert (manifest.debug, manifest.max_threads, manifest.enclave_size) == (False, 64, 2 << 30)
    assert (manifest.isv_prod_id, manifest.isv_svn) == (5, 6)
    assert manifest.insecure == ()


def test_gramines_defaults() -> None:
    manifest = parse_manifest(b'[libos]\nentrypoint = "a"\n')
    assert (manifest.argv, dict(manifest.env), manifest.trusted_files, manifest.mounts) == ((), {}, (), ())
    assert (manifest.debug, manifest.max_threads, manifest.enclave_size) == (False, 4, 256 << 20)
    assert (manifest.isv_prod_id, manifest.isv_svn) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"loader__insecure__use_cmdline_argv": True}, ("loader.insecure__use_cmdline_argv",)),
        ({"loader__insecure__use_cmdline_argv": False}, ()),
        ({"loader__insecure__use_host_env": True}, ("loader.insecure__use_host_env",)),
        ({"loader__argv_src_file": "file:args"}, ("loader.argv_src_file",)),
        ({"loader__env_src_file": "file:env"}, ("loader.env_src_file",)),
        ({"sgx__insecure__rpc_thread_num": 8}, ("sgx.insecure__rpc_thread_num",)),
        ({"sgx__insecure__rpc_thread_num": 0}, ()),
        ({"fs__insecure__keys": {"default": "00" * 16}}, ("fs.insecure__keys",)),
        ({"fs__insecure__keys": {}}, ()),
        ({"libos__deep": {"deeper": {"insecure__x": True}}}, ("libos.deep.deeper.insecure__x",)),
        ({"loader__env": {"PATH": {"passthrough": True}}}, ("loader.env.PATH.passthrough",)),
        ({"loader__env": {"PATH": {"passthrough": False, "value": "x"}}}, ()),
        ({"loader__env": {"insecure__name": "a variable may be called that"}}, ()),
    ],
)
def test_what_hands_a_choice_to_the_host_is_recorded(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert parse(**changes).insecure == names


def test_a_passed_through_variable_has_no_value() -> None:
    assert parse(loader__env={"A": {"passthrough": True}, "B": "1"}).env == {"B": "1"}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"libos": {}}, "libos.entrypoint"),
        ({"libos__entrypoint": ""}, "libos.entrypoint"),
        ({"libos__entrypoint": {"uri": "file:x"}}, "libos.entrypoint"),
        ({"libos": "x"}, "libos"),
        ({"loader__argv": "python3"}, "loader.argv"),
        ({"loader__argv": [1]}, "loader.argv"),
        ({"loader__argv": ["a\0b"]}, "toml"),
        ({"loader__env": {"A": 1}}, "loader.env.A"),
        ({"loader__env": {"A": "a\0b"}}, "toml"),
        ({"loader__env": {"A=B": "1"}}, "loader.env"),
        ({"loader__env": {"": "1"}}, "loader.env"),
        ({"loader__env": {"A": {"passthru": True}}}, "loader.env.A"),
        ({"loader__env": {"A": {"passthrough": "yes"}}}, "loader.env.A"),
        ({"sgx__trusted_files": ["file:x"]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": {"x": "file:x"}}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "x", "sha256": DIGEST}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:", "sha256": DIGEST}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:x/", "sha256": DIGEST}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:../x", "sha256": DIGEST}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:x", "sha256": DIGEST[:-1]}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:x", "sha256": 5}]}, "sgx.trusted_files"),
        ({"sgx__trusted_files": [{"uri": "file:x", "sha256": DIGEST, "more": 1}]}, "sgx.trusted_files"),
        (
            {"sgx__trusted_files": [{"uri": "file:x", "sha256": DIGEST}, {"uri": "file:x", "sha256": "00" * 32}]},
            "sgx.trusted_files",
        ),
        ({"sgx__allowed_files": [1]}, "sgx.allowed_files"),
        ({"sgx__debug": "false"}, "sgx.debug"),
        ({"sgx__debug": 0}, "sgx.debug"),
        ({"sgx__max_threads": 0.5}, "sgx.max_threads"),
        ({"sgx__isvprodid": 65536}, "sgx.isvprodid"),
        ({"sgx__isvsvn": -1}, "sgx.isvsvn"),
        ({"sgx__isvsvn": True}, "sgx.isvsvn"),
        ({"sgx__enclave_size": 1024}, "sgx.enclave_size"),
        ({"sgx__enclave_size": "much"}, "sgx.enclave_size"),
        ({"fs__mounts": ["/lib"]}, "fs.mounts"),
        ({"fs__mounts": [{"uri": "file:/lib"}]}, "fs.mounts.path"),
    ],
)
def test_wrong_values_are_refused_by_name(changes: dict[str, Any], where: str) -> None:
    error = refused(tomli_w.dumps(document(**changes)).encode())
    assert error.check == f"manifest.{where}"


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b"[libos", "manifest.toml"),
        (b"\xff\xfe", "manifest.toml"),
        (b'[libos]\nentrypoint = "a"\nentrypoint = "b"\n', "manifest.toml"),
        (b"x = " + b"[" * 100_000, "manifest.toml"),
        (b"a." * 40 + b"a = 1\n", "manifest.depth"),
        (b"#" * (MAX_MANIFEST_SIZE + 1), "manifest.size"),
    ],
    ids=["syntax", "encoding", "twice", "deep arrays", "deep tables", "size"],
)
def test_what_is_no_manifest(data: bytes, check: str) -> None:
    assert refused(data).check == check


def parsed_or_refused(data: bytes) -> bool:
    """True when the bytes are a manifest, or are refused by name; any other exception is the test's failure."""
    try:
        return parse_manifest(data).raw == data
    except InputError as error:
        return error.check.startswith("manifest.")


@settings(max_examples=150)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    assert parsed_or_refused(data)


_VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-3, 70000), st.text(max_size=5), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.sampled_from(
        (
            *("libos", "loader", "sgx", "fs", "libos__entrypoint", "loader__argv", "loader__env"),
            *("sgx__trusted_files", "sgx__allowed_files", "sgx__debug", "sgx__isvsvn", "sgx__enclave_size"),
            "fs__mounts",
        )
    ),
    _VALUES,
)
def test_any_value_anywhere_is_read_or_refused(name: str, value: object) -> None:
    assert parsed_or_refused(tomli_w.dumps(document(**{name: value})).encode())


@pytest.mark.parametrize("place", ["sgx.max_threads", "sgx.debug", "sgx.enclave_size", "sgx.trusted_files", "fs"])
def test_a_number_that_python_will_not_write(place: str) -> None:
    number = "0x" + "f" * 5000
    value = f"[{number}]" if place == "sgx.trusted_files" else number
    error = refused(f'libos.entrypoint = "a"\n{place} = {value}\n'.encode())
    assert error.check == f"manifest.{place}"
    assert error.found is not None
    assert "thousands of digits" in error.found


def test_a_long_name_of_a_variable_is_cut() -> None:
    assert len(str(refused(f'libos.entrypoint = "a"\nloader.env.{"A" * 5000} = 1\n'.encode()))) < 1000
