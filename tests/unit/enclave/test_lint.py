"""Our own manifest: clean as rendered, and each hole in it is found with the attack that it opens."""

import dataclasses
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w

from ensconce.enclave.image import Image
from ensconce.enclave.lint import check_signable, lint
from ensconce.enclave.manifest import EnclaveSpec, render
from ensconce.errors import RefusedError
from ensconce.platform.manifest import Manifest, parse_manifest


@pytest.fixture
def text(spec: EnclaveSpec, small_image: Image) -> str:
    return render(spec, small_image)


def changed(text: str, path: str, change: Callable[[Any], object]) -> Manifest:
    """The manifest with what ``change`` makes of the value at ``path``."""
    document = tomllib.loads(text)
    *parents, last = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = change(place.get(last))
    return signed(document)


def signed(document: dict[str, Any]) -> Manifest:
    return parse_manifest(tomli_w.dumps(document).encode())


def test_what_we_render_is_clean(text: str) -> None:
    assert lint(parse_manifest(text.encode())) == ()


def also(*more: object) -> Callable[[Any], object]:
    return lambda old: [*old, *more]


def to(value: object) -> Callable[[Any], object]:
    return lambda old: value


@pytest.mark.parametrize(
    ("path", "change", "check", "attack"),
    [
        ("sgx.debug", to(True), "lint.debug.on", "debugger"),
        ("loader.insecure__use_cmdline_argv", to(True), "lint.argv.host", "arguments"),
        ("loader.insecure__use_host_env", to(True), "lint.env.host", "LD_PRELOAD"),
        ("loader.insecure__disable_aslr", to(True), "lint.insecure.aslr", "address"),
        ("loader.argv_src_file", to("file:args"), "lint.argv.file", "arguments"),
        ("loader.env_src_file", to("file:env"), "lint.env.file", "variables"),
        ("loader.env.PYTHONUTF8", to({"passthrough": True}), "lint.env.passthrough", "variable"),
        ("fs.insecure__keys", to({"default": "00" * 16}), "lint.key.in_manifest", "opens the encrypted files"),
        ("sys.insecure__allow_eventfd", to(True), "lint.insecure.eventfd", "events"),
        ("sgx.insecure__rpc_thread_num", to(4), "lint.insecure.rpc_threads", "INTEL-SA-00657"),
        ("sgx.allowed_files", also("file:ssl.cfg"), "lint.allowed_files.secret", "private key"),
        ("sgx.allowed_files", also("file:/etc/hosts"), "lint.allowed_files.names", "names lead"),
        ("sgx.file_check_policy", to("allow_all_but_log"), "lint.files.policy", "of its own"),
        ("loader.log_level", to("trace"), "lint.log.level", "log that the host reads"),
        (
            "fs.mounts",
            also({"type": "untrusted_shm", "path": "/dev/shm", "uri": "dev:/dev/shm"}),
            "lint.mount.shared_memory",
            "reads and changes",
        ),
        ("sgx.remote_attestation", to("none"), "lint.attestation.none", "no key may be given"),
        (
            "sgx.trusted_files",
            also({"uri": "file:enclave/image/site/openvino_telemetry/main.pyc", "sha256": "00" * 32}),
            "lint.trusted_files.contents",
            "network",
        ),
    ],
)
def test_each_hole_is_found_with_the_attack_that_it_opens(
    text: str, path: str, change: Callable[[Any], object], check: str, attack: str
) -> None:
    findings = lint(changed(text, path, change))
    assert [finding.check for finding in findings] == [check]
    assert findings[0].severity == "refuse"
    assert attack in findings[0].attack
    assert findings[0].remedy
    with pytest.raises(RefusedError) as refused:
        check_signable(findings)
    assert refused.value.check == check


def test_an_option_that_we_have_never_heard_of_is_refused_when_it_is_insecure_by_name(text: str) -> None:
    findings = lint(changed(text, "loader.insecure__brand_new", to(1)))
    assert [finding.check for finding in findings] == ["lint.insecure.unknown", "lint.key.unknown"]


def test_what_only_our_replica_may_be_given_is_not_for_other_programs(text: str) -> None:
    findings = lint(changed(text, "loader.argv", to(["/usr/bin/python3.11", "other.py"])))
    assert {finding.check for finding in findings} == {"lint.allowed_files.folder", "lint.allowed_files.config"} | {
        finding.check for finding in findings if finding.severity != "refuse"
    }


def test_a_program_that_is_not_measured_is_the_hosts_to_choose(text: str) -> None:
    document = tomllib.loads(text)
    document["libos"]["entrypoint"] = document["loader"]["argv"][0] = "/usr/bin/other"
    assert [finding.check for finding in lint(signed(document))] == ["lint.entrypoint.host"]


def test_what_is_allowed_is_not_trusted_any_more(text: str) -> None:
    findings = {each.check: each for each in lint(changed(text, "sgx.allowed_files", also("file:/")))}
    assert set(findings) == {"lint.allowed_files.everything", "lint.allowed_files.trusted", "lint.entrypoint.host"}
    assert "hashes nothing" in findings["lint.allowed_files.trusted"].attack


def test_a_program_under_a_mount_is_a_trusted_file_by_its_name_outside(text: str) -> None:
    document = tomllib.loads(text)
    document["libos"]["entrypoint"] = document["loader"]["argv"][0] = "/inside/python3.11"
    document["fs"]["mounts"] = [{"path": "/inside", "uri": "file:/usr/bin/"}]
    assert lint(signed(document)) == ()


def test_product_id_zero_is_a_warning_and_comes_after_what_refuses(spec: EnclaveSpec, small_image: Image) -> None:
    findings = lint(parse_manifest(render(dataclasses.replace(spec, isv_prod_id=0, debug=True), small_image).encode()))
    assert [(finding.check, finding.severity) for finding in findings] == [
        ("lint.debug.on", "refuse"),
        ("lint.identity.product", "warn"),
    ]
    check_signable(findings[1:])
