"""The bill of materials of an image, as SPDX 2.3 in JSON, on standard output.

Run in the image, ``python -I sbom.py NAME``, it lists the packages of the interpreter that runs it (with the SHA-256 of
the wheel that each came from, where the wheels are at hand), the packages of Debian's that are installed, the
interpreter where it is none of these, and what enclaves execute. The same image gives the same bytes: the time is that
of the stamp, and the name space is a hash of the rest. ``python -I sbom.py --staged FILE``, run where enclaves
are built, prints the entries of the packages that FILE names, for the images that these enclaves run in.

Source: SPDX specification 2.3; package URLs, https://github.com/package-url/purl-spec.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

STAMP = Path("/context/stamp.json")
WHEELS = Path("/context/wheels")
STAGED = Path("/opt/staged/packages.json")
DPKG = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")
SERVING = Path("/usr/bin/tensorflow_model_server")

# An expression of these alone is passed on; anything else that authors write into "License" is only quoted.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")
_SPDX = {"Apache 2.0": "Apache-2.0", "Apache License 2.0": "Apache-2.0", "MIT License": "MIT"}
_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def package(kind: str, name: str, version: str, purl: str, **fields: Any) -> dict[str, Any]:
    """One package; its identifier is made of its kind, name and version."""
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", f"{kind}-{name}-{version}"),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    } | fields


def licence(metadata: Any) -> str:
    """The licence that a distribution declares, as an SPDX expression; NOASSERTION where it is not one."""
    for said in (metadata.get("License-Expression"), metadata.get("License")):
        said = _SPDX.get(said, said)
        if said and re.fullmatch(_EXPRESSION, said) and (said == metadata.get("License-Expression") or "-" in said):
            return str(said)
    known = {_CLASSIFIERS[line] for line in metadata.get_all("Classifier") or () if line in _CLASSIFIERS}
    return known.pop() if len(known) == 1 else "NOASSERTION"


def normal(name: str) -> str:
    """A distribution's name as package indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels(folder: Path) -> dict[tuple[str, str], Path]:
    """The wheels in ``folder`` by name and version."""
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, *_ = path.name.split("-")
        found[normal(name), version] = path
    return found


def python_packages(distributions: Iterable[importlib.metadata.Distribution], folder: Path) -> list[dict[str, Any]]:
    """The installed distributions, with the wheels that they came from."""
    here, packages = wheels(folder), {}
    for distribution in distributions:
        name, version = normal(distribution.name), distribution.version
        fields: dict[str, Any] = {"licenseDeclared": licence(distribution.metadata)}
        wheel = here.get((name, version))
        if wheel is not None:
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            fields["checksums"] = [{"algorithm": "SHA256", "checksumValue": digest}]
            fields["packageFileName"] = wheel.name
        packages[name] = package("python", name, version, f"pkg:pypi/{name}@{quote(version)}", **fields)
    return [packages[name] for name in sorted(packages)]


def stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a file in the format of Debian's control files; continued lines are left out."""
    for paragraph in text.split("\n\n"):
        fields = (line.partition(":") for line in paragraph.splitlines() if line[:1].strip())
        found = {key: value.strip() for key, _, value in fields}
        if found:
            yield found


def debian_packages(status: Path, release: dict[str, str]) -> list[dict[str, Any]]:
    """The installed packages of dpkg's status file; none where there is no such file."""
    if not status.is_file():
        return []
    system = release.get("ID", "debian")
    distro = f"{system}-{release['VERSION_ID']}" if "VERSION_ID" in release else system
    packages = []
    for fields in stanzas(status.read_text(encoding="utf-8", errors="replace")):
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
        purl = f"pkg:deb/{system}/{quote(name, safe='')}@{quote(version, safe='')}?arch={arch}&distro={distro}"
        source = fields.get("Source", name)
        packages.append(
            package(
                f"deb-{arch}",
                name,
                version,
                purl,
                supplier=f"Organization: {release.get('NAME', system)}",
                sourceInfo=f"source package {source if '(' in source else f'{source} ({version})'}",
            )
        )
    return sorted(packages, key=lambda each: str(each["SPDXID"]))


def os_release(path: Path) -> dict[str, str]:
    """The assignments of ``os-release``."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {key: value.strip("\"'") for key, sign, value in (line.partition("=") for line in lines) if sign}


def document(name: str, version: str, packages: list[dict[str, Any]], inside: set[str], created: int) -> dict[str, Any]:
    """The whole document.

    Args:
        name: of the image.
        version: of Ensconce.
        packages: what is in the image.
        inside: identifiers of those that enclaves execute.
        created: seconds since 1970.
    """
    image = package("image", name, version, f"pkg:oci/{name}", primaryPackagePurpose="CONTAINER")
    image["licenseDeclared"] = "Apache-2.0"
    enclave = package("enclave", f"{name}-enclave", version, f"pkg:generic/{name}-enclave@{version}")
    every = [image, *([enclave] if inside else []), *packages]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", image["SPDXID"])]
    relations += [(image["SPDXID"], "CONTAINS", each["SPDXID"]) for each in every[1:]]
    relations += [(enclave["SPDXID"], "CONTAINS", each) for each in sorted(inside)]
    body = {
        "packages": every,
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in relations
        ],
    }
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    moment = datetime.datetime.fromtimestamp(created, datetime.UTC)
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/{name}-{digest}",
        "creationInfo": {
            "created": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": [f"Tool: ensconce-images-{version}"],
        },
        **body,
    }


def main() -> None:
    """Print the document of the image NAME, or the entries of staged packages."""
    installed = python_packages(importlib.metadata.distributions(), WHEELS)
    known = {str(each["name"]): each for each in installed}
    if sys.argv[1] == "--staged":
        json.dump([known[normal(name)] for name in json.loads(Path(sys.argv[2]).read_text())], sys.stdout)
        return
    inside = set()
    for each in json.loads(STAGED.read_text()) if STAGED.is_file() else []:
        inside.add(str(each["SPDXID"]))
        known[f"{each['name']} {each['versionInfo']}"] = known.pop(each["name"], each)
    debian = debian_packages(DPKG, os_release(OS_RELEASE))
    packages = [*sorted(known.values(), key=lambda each: str(each["SPDXID"])), *debian]
    if not any(re.fullmatch(r"(lib)?python3\.\d+(-minimal)?", str(each["name"])) for each in debian):
        version = platform.python_version()
        packages.append(
            package("generic", "python", version, f"pkg:generic/python@{version}", licenseDeclared="PSF-2.0")
        )
    if SERVING.is_file():
        digest = hashlib.sha256(SERVING.read_bytes()).hexdigest()
        checksum = {"algorithm": "SHA256", "checksumValue": digest}
        serving = package(
            "generic", "tensorflow-serving", "NOASSERTION", "pkg:generic/tensorflow-serving", checksums=[checksum]
        )
        packages.append(serving)
        inside.add(str(serving["SPDXID"]))
    created = int(json.loads(STAMP.read_text())["source_date_epoch"])
    json.dump(
        document(sys.argv[1], importlib.metadata.version("ensconce"), packages, inside, created), sys.stdout, indent=1
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
