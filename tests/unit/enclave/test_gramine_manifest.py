"""The text; that Gramine takes it, and that what it starts works, is shown in tests/interop/gramine."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from ensconce.enclave.closing import LIBOS
from ensconce.enclave.config import ModelConfig, VersionsConfig
from ensconce.enclave.gramine_manifest import names_files, render_gramine
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile
from ensconce.enclave.lint import lint
from ensconce.enclave.manifest import CONFIG, HARMLESS_FILES, EnclaveSpec
from ensconce.enclave.sizes import Sizes, held
from ensconce.platform.manifest import parse_manifest

MIB = 1 << 20
SIZES = Sizes.of([100 * MIB], 2)


@pytest.fixture
def closed() -> Image:
    names = ("bulk.json", LIBOS, "gramine/libc.so.6", "lib/python3.11/os.pyc", "system/python3.11")
    bulk = (ImageFile("site/openvino/libs/libopenvino.so.1", 1, "cd" * 32),)
    return Image("system/python3.11", tuple(ImageFile(name, 1, "ab" * 32) for name in names), (), (), bulk)


@pytest.fixture
def there(spec: EnclaveSpec) -> EnclaveSpec:
    return dataclasses.replace(spec, platform="gramine", hosts={"provisioning.example.test": "192.0.2.1"})


def test_it_is_what_our_lint_accepts_and_names_nothing_of_the_host(there: EnclaveSpec, closed: Image) -> None:
    text = render_gramine(there, closed, SIZES)
    manifest = parse_manifest(text.encode())
    assert [finding for finding in lint(manifest) if finding.severity == "refuse"] == []
    assert manifest.entrypoint == manifest.argv[0] == "/enclave/image/system/python3.11"
    assert manifest.argv[-3:] == ("-m", "ensconce.enclave.early", CONFIG)
    assert manifest.env["LD_LIBRARY_PATH"] == "/enclave/image/gramine:/enclave/image/system:/enclave/image/checked"
    # Without it, each thread's heap takes 64 MiB that nobody reckoned with.
    assert manifest.env["MALLOC_ARENA_MAX"] == "1"
    assert manifest.insecure == ()
    assert manifest.allowed_files == HARMLESS_FILES
    assert all(not file.path.startswith("/") for file in manifest.trusted_files)
    assert {file.path for file in manifest.trusted_files} == {
        CONFIG,
        *(f"enclave/{name}" for name in names_files(there)),
        *(f"enclave/image/{file.path}" for file in closed.files if file.path != LIBOS),
    }
    document = tomllib.loads(text)
    assert document["loader"]["entrypoint"] == {"uri": f"file:enclave/image/{LIBOS}", "sha256": "ab" * 32}
    assert document["sgx"]["debug"] is False
    assert document["sgx"]["remote_attestation"] == "dcap"
    assert document["sys"]["enable_sigterm_injection"] is True
    in_memory = [mount["path"] for mount in document["fs"]["mounts"] if mount.get("type") == "tmpfs"]
    assert in_memory == ["/enclave/image/checked"]
    assert (document["sgx"]["enclave_size"], document["sgx"]["max_threads"]) == (SIZES.size_text, SIZES.threads)


def test_every_line_of_what_is_allowed_says_why(there: EnclaveSpec, closed: Image) -> None:
    lines = render_gramine(there, closed, SIZES).splitlines()
    for uri in HARMLESS_FILES:
        assert lines[lines.index(f'  "{uri}",') - 1].startswith("  # ")


def test_names_are_looked_up_in_measured_files(there: EnclaveSpec, closed: Image) -> None:
    files = names_files(dataclasses.replace(there, nameservers=("192.0.2.53",)))
    assert files["hosts"] == b"127.0.0.1 localhost\n192.0.2.1 provisioning.example.test\n"
    assert files["resolv.conf"] == b"nameserver 192.0.2.53\n"
    other = dataclasses.replace(there, hosts={"provisioning.example.test": "192.0.2.2"})
    assert render_gramine(there, closed, SIZES) != render_gramine(other, closed, SIZES)


def test_a_size_that_was_chosen_is_taken(there: EnclaveSpec, closed: Image) -> None:
    text = render_gramine(dataclasses.replace(there, enclave_size="16G"), closed, SIZES)
    assert parse_manifest(text.encode()).enclave_size == 16 << 30


def test_sizes_are_powers_of_two_that_grow_with_models_and_threads() -> None:
    sizes = [Sizes.of(models, 2).size for models in ([], [100 * MIB], [4000 * MIB], [4000 * MIB, 4000 * MIB])]
    assert sizes == sorted(sizes)
    assert all(size & (size - 1) == 0 for size in sizes)
    assert sizes[2] >= 4 * 4000 * MIB
    assert Sizes.of([], 4).threads == Sizes.of([], 2).threads + 4
    assert Sizes.of([None], 0).threads > 64
    assert "0: the host" in Sizes.of([None], 0).threads_reason


def test_what_is_held_is_what_the_policy_chooses_of_the_bundle(tmp_path: Path) -> None:
    for version, size in ((1, 10), (2, 20), (3, 30)):
        folder = tmp_path / "digits" / str(version)
        folder.mkdir(parents=True)
        (folder / "model.bin").write_bytes(bytes(size))
    assert held(tmp_path, [ModelConfig(name="digits", versions=VersionsConfig(latest=2))]) == [30, 20]
    assert sorted(filter(None, held(tmp_path, [ModelConfig(name="digits")]))) == [10, 20, 30]
    assert held(tmp_path, [ModelConfig(name="letters")]) == [None]
