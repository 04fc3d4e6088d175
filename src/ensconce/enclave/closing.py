"""Closing an image for Gramine: the interpreter and the libraries of the system move in, and Gramine's own with them.

Then a host's other C library or OpenSSL, or another place for any of them, is nothing to the enclave: it opens what
lies in its own folder, and its measurement names no path of the machine that built it. What Gramine brings under the
same name (the C library and its kin) takes the place of the system's, which would call the kernel that is not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ensconce.enclave.early import INDEX
from ensconce.enclave.elf import loaded_part, soname
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile, hash_file
from ensconce.enclave.manifest import BULK, FOLDER
from ensconce.errors import InputError

__all__ = ["LIBOS", "RUNTIME", "SYSTEM", "close"]

# Folders whose libraries the replica checks itself, and the packages that need them, in the order of their imports.
_ASIDE = Path(BULK).name
_BULK = {"site/numpy.libs": "numpy", "site/openvino/libs": "openvino"}

RUNTIME = "gramine"
"""Where Gramine's own files lie in the image: found first by whatever looks for libraries."""

LIBOS = f"{RUNTIME}/libsysdb.so"
"""Gramine's library OS, likewise."""

SYSTEM = "system"
"""Where the interpreter and the system's libraries lie in the image."""


def close(image: Image, out: Path, gramine: Gramine) -> Image:
    """Stage what ``image`` needs of the system into ``out``, its folder.

    Returns:
        The image, which needs nothing of the system any more; ``interpreter`` is relative to it.

    Raises:
        InputError: a file cannot be copied, or is no program file.
    """
    try:
        (out / RUNTIME).mkdir()
        (out / SYSTEM).mkdir()
        shutil.copyfile(gramine.libos, out / LIBOS)
        files = [hash_file(out / LIBOS, LIBOS)]
        interpreter = ""
        for file in image.system_files:
            path = Path(file.path)
            data = path.read_bytes()
            # A library is looked for by the name it states; the interpreter, a program, states none.
            name = soname(data) or path.name
            if (gramine.runtime / name).is_file():
                target = f"{RUNTIME}/{name}"
                shutil.copyfile(gramine.runtime / name, out / target)
                files.append(hash_file(out / target, target))
                continue
            target = f"{SYSTEM}/{name}"
            files.append(_write(out, target, loaded_part(data)))
            if file.path == image.interpreter:
                interpreter = target
                # Gramine starts what could be started outside.
                (out / target).chmod(0o755)
        bulk = tuple(file for file in image.files if str(Path(file.path).parent) in _BULK)
        files.append(_set_aside(bulk, out))
    except OSError as error:
        raise InputError(
            "image.stage",
            f"cannot stage the image: {error.strerror or error}",
            found=str(error.filename or out),
            remedy="free some space, or check the permissions",
        ) from error
    listed = sorted({*image.files, *files} - {*bulk})
    return dataclasses.replace(image, interpreter=interpreter, files=tuple(listed), system_files=(), bulk=bulk)


def _set_aside(bulk: Sequence[ImageFile], out: Path) -> ImageFile:
    """Move libraries to where Gramine lets them pass, and list them."""
    (out / _ASIDE).mkdir()
    entries = []
    packages = list(_BULK.values())
    for file in bulk:
        name = Path(file.path).name
        (out / file.path).rename(out / _ASIDE / name)
        entries.append(
            {
                "package": _BULK[str(Path(file.path).parent)],
                "file": f"{BULK}/{name}",
                "target": f"{FOLDER}/image/{file.path}",
                "size": file.size,
                "sha256": file.sha256,
            }
        )
    entries.sort(key=lambda entry: (packages.index(str(entry["package"])), entry["size"]))
    return _write(out, Path(INDEX).name, json.dumps(entries, indent=1).encode())


def _write(out: Path, target: str, data: bytes) -> ImageFile:
    with (out / target).open("xb") as file:
        file.write(data)
    return ImageFile(target, len(data), hashlib.sha256(data).hexdigest())
