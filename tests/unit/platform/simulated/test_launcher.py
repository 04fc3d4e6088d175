"""What may start: each thing that differs from what the owner signed is refused, under its own name."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric import rsa

from ensconce.enclave.sign import new_signing_key, sign_manifest
from ensconce.errors import EnsconceError, EvidenceError, InputError, IntegrityError
from ensconce.evidence.report import Attributes
from ensconce.evidence.sigstruct import parse_sigstruct
from ensconce.platform.manifest import parse_manifest
from ensconce.platform.simulated.launcher import Launchable, check
from ensconce.platform.simulated.measurement import measure

TODAY = datetime.date(2026, 11, 22)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return new_signing_key()


class Bundle:
    """``enclave/`` with a program and a library, and ``system/`` beside it, of which one file is trusted.

    The host may lay anything into ``models/`` and ``system/``.
    """

    def __init__(self, root: Path, key: rsa.RSAPrivateKey) -> None:
        self.root = root
        self.key = key
        self.enclave = root / "enclave"
        (self.enclave / "lib" / "deep").mkdir(parents=True)
        (root / "system").mkdir()
        self.files = ["enclave/program", "enclave/lib/deep/module", str(root / "system" / "libc")]
        for name in self.files:
            (root / name).write_text(f"contents of {Path(name).name}")
        (root / "system" / "other").write_text("no business of the enclave's")
        self.tables: dict[str, Any] = {
            "libos": {"entrypoint": "enclave/program"},
            "loader": {"argv": ["program", "argument"], "env": {"NAME": "value"}},
            "sgx": {"isvprodid": 9, "isvsvn": 4, "allowed_files": ["file:models/", "file:system/"]},
        }
        self.manifest = self.enclave / "server.manifest.sgx"
        self.sigstruct = self.enclave / "server.sig"

    def sign(self) -> None:
        self.tables["sgx"]["trusted_files"] = [
            {"uri": f"file:{name}", "sha256": hashlib.sha256((self.root / name).read_bytes()).hexdigest()}
            for name in self.files
        ]
        self.manifest.write_text(tomli_w.dumps(self.tables))
        self.resign()

    def resign(self) -> None:
        manifest = parse_manifest(self.manifest.read_bytes())
        self.sigstruct.write_bytes(sign_manifest(manifest, measure(manifest), self.key, date=TODAY))

    def check(self, cwd: Path | None = None) -> Launchable:
        return check(self.manifest, self.sigstruct, cwd or self.root)

    def refused(self, kind: type[EnsconceError] = IntegrityError) -> EnsconceError:
        with pytest.raises(kind) as refusal:
            self.check()
        return refusal.value


@pytest.fixture
def bundle(tmp_path: Path, key: rsa.RSAPrivateKey) -> Bundle:
    made = Bundle(tmp_path / "host", key)
    made.sign()
    return made


def test_what_the_owner_signed_may_start(bundle: Bundle, key: rsa.RSAPrivateKey) -> None:
    launchable = bundle.check()
    assert launchable.program == bundle.root / "enclave" / "program"
    assert launchable.argv == ("program", "argument")
    assert launchable.env == {"NAME": "value"}
    assert launchable.mr_enclave == measure(parse_manifest(bundle.manifest.read_bytes()))
    report = launchable.report(b"c" * 16, b"r" * 64)
    assert report.mr_enclave == launchable.mr_enclave
    assert report.mr_signer == hashlib.sha256(key.public_key().public_numbers().n.to_bytes(384, "little")).digest()
    assert (report.isv_prod_id, report.isv_svn, report.cpu_svn, report.report_data) == (9, 4, b"c" * 16, b"r" * 64)
    assert report.attributes.flags == Attributes.INIT | Attributes.MODE64BIT


def test_the_measurement_is_of_the_manifest_and_nothing_else(bundle: Bundle, tmp_path: Path) -> None:
    before = bundle.check().mr_enclave
    moved = tmp_path / "elsewhere"
    bundle.root.rename(moved)
    (moved / "system" / "libc").rename(tmp_path / "libc")
    bundle.root.joinpath("system").mkdir(parents=True)
    (tmp_path / "libc").rename(bundle.root / "system" / "libc")
    there = check(moved / "enclave" / "server.manifest.sgx", moved / "enclave" / "server.sig", moved)
    assert there.mr_enclave == before


@pytest.mark.parametrize("name", ["enclave/program", "enclave/lib/deep/module", "system/libc"])
def test_one_changed_bit_in_a_trusted_file(bundle: Bundle, name: str) -> None:
    path = bundle.root / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    error = bundle.refused()
    assert error.check == "launcher.trusted_file"
    assert str(path) in str(error)


@pytest.mark.parametrize("name", ["enclave/program", "enclave/lib/deep/module", "system/libc"])
def test_a_missing_trusted_file(bundle: Bundle, name: str) -> None:
    (bundle.root / name).unlink()
    error = bundle.refused()
    assert error.check == "launcher.trusted_file"
    assert name.rpartition("/")[2] in str(error)


def test_a_longer_and_a_shorter_trusted_file(bundle: Bundle) -> None:
    path = bundle.root / "enclave" / "program"
    sound = path.read_bytes()
    for changed in (sound + b"\0", sound[:-1], b""):
        path.write_bytes(changed)
        assert bundle.refused().check == "launcher.trusted_file"


@pytest.mark.parametrize(
    "name", ["enclave/extra", "enclave/.hidden", "enclave/lib/deep/extra.pyc", "enclave/lib/program"]
)
def test_an_unlisted_file_in_the_enclaves_folder(bundle: Bundle, name: str) -> None:
    (bundle.root / name).write_text("")
    error = bundle.refused()
    assert error.check == "launcher.unlisted_file"
    assert name in str(error)


def test_what_the_manifest_allows_may_lie_in_the_working_directory(bundle: Bundle) -> None:
    (bundle.root / "models").mkdir()
    (bundle.root / "models" / "ciphertext").write_text("")
    bundle.check()


@pytest.mark.parametrize("name", ["pybuilddir.txt", ".bin", "libopenvino_auto_plugin.so", "Modules/Setup", "Models/x"])
def test_an_unlisted_file_in_the_working_directory(bundle: Bundle, name: str) -> None:
    """Python and OpenVINO take code or weights from files of these names where they are started."""
    path = bundle.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    error = bundle.refused()
    assert error.check == "launcher.unlisted_file"
    assert name.partition("/")[0] in str(error)


def test_a_manifest_that_is_named_apart_from_the_files_does_not_open_their_folder(
    bundle: Bundle, tmp_path: Path
) -> None:
    """The host names manifest and working directory; a manifest alone in a folder has nothing unlisted beside it."""
    apart = tmp_path / "apart"
    apart.mkdir()
    for path in (bundle.manifest, bundle.sigstruct):
        path.rename(apart / path.name)
    manifest, sigstruct = apart / bundle.manifest.name, apart / bundle.sigstruct.name
    assert check(manifest, sigstruct, bundle.root).cwd == bundle.root
    (bundle.enclave / "lib" / "deep" / "module.py").write_text("")
    with pytest.raises(IntegrityError) as refusal:
        check(manifest, sigstruct, bundle.root)
    assert refusal.value.check == "launcher.unlisted_file"


@pytest.mark.parametrize("kind", ["dangling link", "link to a file", "link to a folder", "pipe"])
def test_unlisted_things_that_are_no_plain_files(bundle: Bundle, kind: str) -> None:
    path = bundle.enclave / "extra"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        targets = {"dangling link": "/nowhere", "link to a file": "program", "link to a folder": str(bundle.root)}
        path.symlink_to(targets[kind])
    assert bundle.refused().check == "launcher.unlisted_file"


def test_a_trusted_file_may_be_a_link_to_the_same_contents(bundle: Bundle) -> None:
    """Shared libraries are links. The contents are what is trusted; the name is the host's anyway."""
    path = bundle.enclave / "program"
    moved = bundle.root.parent / "moved"
    path.rename(moved)
    path.symlink_to(moved)
    bundle.check()
    moved.write_text("other contents")
    assert bundle.refused().check == "launcher.trusted_file"


def test_a_trusted_files_folder_may_not_be_a_link(bundle: Bundle) -> None:
    """What else it leads to is not listed."""
    (bundle.enclave / "lib").rename(bundle.root.parent / "lib")
    (bundle.enclave / "lib").symlink_to(bundle.root.parent / "lib")
    assert bundle.refused().check == "launcher.unlisted_file"


def test_the_enclaves_folder_itself_may_be_reached_by_a_link(bundle: Bundle, tmp_path: Path) -> None:
    """So replicas share one copy, each in a working directory of its own."""
    replica = tmp_path / "replica"
    replica.mkdir()
    (replica / "enclave").symlink_to(bundle.enclave)
    launchable = check(replica / "enclave" / "server.manifest.sgx", replica / "enclave" / "server.sig", replica)
    assert launchable.program == replica / "enclave" / "program"
    assert bundle.check(replica).cwd == replica
    (bundle.enclave / "extra").write_text("")
    with pytest.raises(IntegrityError) as refusal:
        check(replica / "enclave" / "server.manifest.sgx", replica / "enclave" / "server.sig", replica)
    assert refusal.value.check == "launcher.unlisted_file"


def test_another_folder_in_the_enclaves_place(bundle: Bundle, tmp_path: Path) -> None:
    """The manifest of one folder, the files of another: those of the manifest's folder are then not listed."""
    copy = tmp_path / "copy"
    (copy / "enclave" / "lib" / "deep").mkdir(parents=True)
    for name in bundle.files[:2]:
        (copy / name).write_bytes((bundle.root / name).read_bytes())
    with pytest.raises(IntegrityError) as refusal:
        bundle.check(copy)
    assert refusal.value.check == "launcher.unlisted_file"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_trusted_file_that_is_no_file(bundle: Bundle, kind: str) -> None:
    path = bundle.root / "system" / "libc"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert bundle.refused().check == "launcher.trusted_file"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"argument"', '"another"'),
        ('NAME = "value"', 'NAME = "other"'),
        ("isvsvn = 4", "isvsvn = 5"),
        ("[libos]", "# a comment changes nothing but the measurement\n[libos]"),
        ("[sgx]", "[sgx]\ndebug = true"),
    ],
)
def test_a_manifest_that_was_not_signed(bundle: Bundle, old: str, new: str) -> None:
    text = bundle.manifest.read_text()
    assert old in text
    bundle.manifest.write_text(text.replace(old, new))
    assert bundle.refused().check == "launcher.measurement"


def test_a_signature_of_another_enclave(bundle: Bundle, tmp_path: Path, key: rsa.RSAPrivateKey) -> None:
    other = Bundle(tmp_path / "other", key)
    other.tables["loader"]["argv"].append("more")
    other.sign()
    bundle.sigstruct.write_bytes(other.sigstruct.read_bytes())
    assert bundle.refused().check == "launcher.measurement"


@pytest.mark.parametrize(
    ("at", "what"), [(20, "date"), (900, "MISCSELECT"), (928, "ATTRIBUTES"), (1024, "ISVPRODID"), (1026, "ISVSVN")]
)
def test_signed_fields_of_the_sigstruct(bundle: Bundle, at: int, what: str) -> None:
    data = bytearray(bundle.sigstruct.read_bytes())
    data[at] ^= 1
    bundle.sigstruct.write_bytes(data)
    assert bundle.refused().check == "launcher.signature", what


@pytest.mark.parametrize(
    ("at", "what"), [(128, "modulus"), (511, "modulus"), (516, "signature"), (1040, "q1"), (1424, "q2")]
)
def test_the_signature_itself(bundle: Bundle, at: int, what: str) -> None:
    data = bytearray(bundle.sigstruct.read_bytes())
    data[at] ^= 1
    bundle.sigstruct.write_bytes(data)
    assert bundle.refused().check == "launcher.signature", what


def test_a_wrong_exponent(bundle: Bundle) -> None:
    data = bytearray(bundle.sigstruct.read_bytes())
    data[512:516] = (65537).to_bytes(4, "little")
    bundle.sigstruct.write_bytes(data)
    assert bundle.refused(EvidenceError).check == "sigstruct.exponent"


@pytest.mark.parametrize("modulus", [0, 1, 15, (1 << 3072) - 2, (1 << 2048) + 1])
def test_a_modulus_that_is_none(bundle: Bundle, modulus: int) -> None:
    sound = parse_sigstruct(bundle.sigstruct.read_bytes())
    broken = replace(sound, modulus=modulus.to_bytes(384, "little"))
    bundle.sigstruct.write_bytes(broken.to_bytes())
    assert bundle.refused().check == "launcher.signature"


def test_a_sigstruct_of_zeros(bundle: Bundle) -> None:
    sound = parse_sigstruct(bundle.sigstruct.read_bytes())
    bundle.sigstruct.write_bytes(replace(sound, signature=bytes(384), q1=bytes(384), q2=bytes(384)).to_bytes())
    assert bundle.refused().check == "launcher.signature"


@pytest.mark.parametrize("size", [0, 1807, 1809])
def test_a_sigstruct_of_another_length(bundle: Bundle, size: int) -> None:
    bundle.sigstruct.write_bytes((bundle.sigstruct.read_bytes() * 2)[:size])
    with pytest.raises((EvidenceError, InputError)) as refusal:
        bundle.check()
    assert refusal.value.check in ("sigstruct.size", "file.size")


def test_debug_in_both_or_in_neither(bundle: Bundle, key: rsa.RSAPrivateKey) -> None:
    bundle.tables["sgx"]["debug"] = True
    bundle.sign()
    assert bundle.check().report(bytes(16), bytes(64)).attributes.debug

    # Signed as no debug enclave, over the measurement of one.
    manifest = parse_manifest(bundle.manifest.read_bytes())
    bundle.sigstruct.write_bytes(sign_manifest(replace(manifest, debug=False), measure(manifest), key, date=TODAY))
    assert bundle.refused().check == "launcher.debug"


def test_a_program_that_is_not_trusted(bundle: Bundle) -> None:
    bundle.tables["libos"]["entrypoint"] = str(bundle.root / "system" / "other")
    bundle.sign()
    assert bundle.refused().check == "launcher.entrypoint"


def test_a_manifest_without_argv(bundle: Bundle) -> None:
    del bundle.tables["loader"]["argv"]
    bundle.sign()
    assert bundle.refused(InputError).check == "launcher.argv"


def test_an_environment_too_large_to_start_with(bundle: Bundle) -> None:
    bundle.tables["loader"]["env"]["LARGE"] = "x" * (128 * 1024)
    bundle.sign()
    assert bundle.refused(InputError).check == "launcher.argv"


@pytest.mark.parametrize(
    "change",
    [
        lambda tables: tables["loader"].update(insecure__use_cmdline_argv=True),
        lambda tables: tables["loader"].update(insecure__use_host_env=True),
        lambda tables: tables["loader"]["env"].update(PATH={"passthrough": True}),
        lambda tables: tables["loader"].update(argv_src_file="file:argv"),
    ],
)
def test_argv_and_environment_are_never_the_hosts(bundle: Bundle, change: Callable[[Any], None]) -> None:
    change(bundle.tables)
    bundle.sign()
    assert bundle.refused(InputError).check == "launcher.insecure"


def test_a_missing_manifest_signature_or_folder(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        bundle.check(tmp_path / "nowhere")
    assert refusal.value.check == "launcher.cwd"
    for path in (bundle.sigstruct, bundle.manifest):
        path.unlink()
        assert bundle.refused(InputError).check == "file.read"
