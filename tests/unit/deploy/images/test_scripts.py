"""What the steps of the Dockerfile run: the bill of materials, and what is downloaded."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

IMAGES = Path(__file__).parents[4] / "deploy" / "images"
LOCK = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via openvino
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:dd
rich==15.0.0 \\
    --hash=sha256:ee
"""
STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.17-1~deb12u3
Description: Secure Sockets Layer toolkit
 Version: of something else

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 1:2.36-9
"""


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    return runpy.run_path(str(IMAGES / "sbom.py"))


def test_a_download_takes_the_images_python() -> None:
    locked = runpy.run_path(str(IMAGES / "download.py"))["locked"]
    rich = "rich==15.0.0 --hash=sha256:ee"
    assert locked(LOCK, "3.11") == ["numpy==2.4.6 --hash=sha256:aa --hash=sha256:bb", rich]
    assert locked(LOCK, "3.13") == ["numpy==2.5.5 --hash=sha256:cc", rich]


def test_debians_packages(sbom: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    libc, ssl = sbom["debian_packages"](tmp_path / "status", {"ID": "debian", "VERSION_ID": "12", "NAME": "Debian"})
    assert (libc["name"], libc["versionInfo"]) == ("libc6", "1:2.36-9")
    assert (ssl["name"], ssl["versionInfo"], ssl["sourceInfo"]) == (
        *("libssl3", "3.0.17-1~deb12u3"),
        "source package openssl (3.0.17-1~deb12u3)",
    )
    locator = libc["externalRefs"][0]["referenceLocator"]
    assert locator == "pkg:deb/debian/libc6@1%3A2.36-9?arch=amd64&distro=debian-12"
    assert sbom["debian_packages"](tmp_path / "none", {}) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT OR Apache-2.0")], "MIT OR Apache-2.0"),
        ([("License-Expression", "MIT")], "MIT"),
        ([("License", "Apache 2.0")], "Apache-2.0"),
        ([("License", "3-Clause BSD License")], "NOASSERTION"),
        ([("License", "do what you like")], "NOASSERTION"),
        ([("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([], "NOASSERTION"),
    ],
)
def test_licences(sbom: dict[str, Any], fields: list[tuple[str, str]], expected: str) -> None:
    metadata = Message()
    for key, value in fields:
        metadata[key] = value
    assert sbom["licence"](metadata) == expected


def test_the_document_is_whole_and_the_same_again(sbom: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "numpy-0-cp311-cp311-linux_x86_64.whl").write_bytes(b"another version")

    def document() -> dict[str, Any]:
        python = sbom["python_packages"](importlib.metadata.distributions(), tmp_path)
        packages = [*python, *sbom["debian_packages"](tmp_path / "status", {"ID": "debian"})]
        inside = {each["SPDXID"] for each in python if each["name"] == "numpy"}
        made: dict[str, Any] = sbom["document"]("server-simulated", "0.1.0", packages, inside, 1_700_000_000)
        return made

    first = document()
    assert json.dumps(first) == json.dumps(document())
    assert first["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    names = [each["SPDXID"] for each in first["packages"]]
    assert len(set(names)) == len(names)
    for relation in first["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= {*names, "SPDXRef-DOCUMENT"}
    assert {"numpy", "ensconce", "libssl3"} <= {each["name"] for each in first["packages"]}
    numpy = next(each for each in first["packages"] if each["name"] == "numpy")
    assert "checksums" not in numpy
    inside = [each for each in first["relationships"] if each["spdxElementId"].startswith("SPDXRef-enclave-")]
    assert [each["relatedSpdxElement"] for each in inside] == [numpy["SPDXID"]]
