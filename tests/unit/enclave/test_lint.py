import dataclasses
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import tomli_w

from ensconce.enclave.image import Image
from ensconce.enclave.lint import lint
from ensconce.enclave.manifest import EnclaveSpec, render
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
        ("sgx.debug", to(True), "lint.debug", "debugger"),
        ("loader.insecure__use_cmdline_argv", to(True), "lint.insecure", "arguments"),
        ("loader.insecure__use_host_env", to(True), "lint.insecure", "LD_PRELOAD"),
        ("loader.insecure__disable_aslr", to(True), "lint.insecure", "addresses"),
        ("loader.argv_src_file", to("file:args"), "lint.insecure", "arguments"),
        ("loader.env_src_file", to("file:env"), "lint.insecure", "environment"),
        ("loader.insecure__brand_new", to(1), "lint.insecure", "unmeasured"),
        ("loader.env.PYTHONUTF8", to({"passthrough": True}), "lint.insecure", "variable"),
        ("fs.insecure__keys", to({"default": "00" * 16}), "lint.insecure", "has the key"),
        ("sys.insecure__allow_eventfd", to(True), "lint.insecure", "events"),
        ("sgx.insecure__rpc_thread_num", to(4), "lint.insecure", "INTEL-SA-00657"),
        ("loader.argv", to([]), "lint.argv", "no argument is measured"),
        ("sgx.allowed_files", also("file:/"), "lint.allowed_files", "replaces"),
        ("sgx.allowed_files", also("file:ssl.cfg"), "lint.allowed_files", "replaces"),
        ("sgx.file_check_policy", to("allow_all_but_log"), "lint.file_check_policy", "of its own"),
        ("loader.log_level", to("trace"), "lint.log_level", "log that the host reads"),
        (
            "fs.mounts",
            also({"type": "untrusted_shm", "path": "/dev/shm", "uri": "dev:/dev/shm"}),
            "lint.mount",
            "reads",
        ),
        ("libos.entrypoint", to("/usr/bin/other"), "lint.entrypoint", "another program"),
        (
            "sgx.trusted_files",
            also({"uri": "file:enclave/image/site/openvino_telemetry/main.pyc", "sha256": "00" * 32}),
            "lint.contents",
            "network",
        ),
    ],
)
def test_each_hole_is_found_with_the_attack_that_it_opens(
    text: str, path: str, change: Callable[[Any], object], check: str, attack: str
) -> None:
    findings = lint(changed(text, path, change))
    assert [finding.check for finding in findings] == [check]
    assert findings[0].severity == "error"
    assert attack in findings[0].attack
    assert findings[0].remedy


def test_a_program_under_a_mount_is_a_trusted_file_by_its_name_outside(text: str) -> None:
    document = tomllib.loads(text)
    document["libos"]["entrypoint"] = "/inside/python3.11"
    document["fs"]["mounts"] = [{"path": "/inside", "uri": "file:/usr/bin/"}]
    assert lint(parse_manifest(tomli_w.dumps(document).encode())) == ()


def test_product_id_zero_is_a_warning_and_comes_after_errors(spec: EnclaveSpec, small_image: Image) -> None:
    findings = lint(parse_manifest(render(dataclasses.replace(spec, isv_prod_id=0, debug=True), small_image).encode()))
    assert [(finding.check, finding.severity) for finding in findings] == [
        ("lint.debug", "error"),
        ("lint.isv_prod_id", "warning"),
    ]
