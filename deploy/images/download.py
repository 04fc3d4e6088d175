"""Download the wheels that images are made of: ``python3 download.py 3.12 FOLDER``, for Python 3.12 in the image.

Only what the locks name, by hash. Markers are evaluated for the image's Python, which pip itself does not do when it
downloads for another one than its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pip._vendor.packaging.markers import Marker

LOCKS = ("build", "images", "no-engine", "provisioning", "runtime")
REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def locked(text: str, python: str) -> list[str]:
    """The requirements of a lock that apply to ``python``, with their hashes and without their markers."""
    environment = {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "python_full_version": f"{python}.99",
        "python_version": python,
        "sys_platform": "linux",
    }
    found = []
    for line in re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M)).splitlines():
        requirement, *hashes = line.split(" --hash=")
        name, _, marker = requirement.partition(";")
        if name.strip() and (not marker or Marker(marker.strip()).evaluate(environment)):
            found.append(" --hash=".join((name.strip(), *(each.strip() for each in hashes))))
    return found


def main() -> None:
    """Download what is not in FOLDER yet."""
    _, python, folder = sys.argv
    lines = {line for name in LOCKS for line in locked((REQUIREMENTS / f"{name}.txt").read_text(), python)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(sorted(lines)))
        wanted.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
        done = subprocess.run(
            [*command, "--find-links", folder, "--dest", folder, "--requirement", wanted.name], check=False
        )
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
