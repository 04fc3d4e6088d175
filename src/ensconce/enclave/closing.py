"""Closing an image for Gramine: the interpreter and the libraries of the system move in, and Gramine's own with them.

Then a host's other C library or OpenSSL, or another place for any of them, is nothing to the enclave: it opens what
lies in its own folder, and its measurement names no path of the machine that built it. What Gramine brings under the
same name (the C library and its kin) takes the place of the system's, which would call the kernel that is not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ensconce.enclave.contents import site
from ensconce.enclave.early import INDEX
from ensconce.enclave.elf import loaded_part, soname
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile, hash_file
from ensconce.enclave.manifest import BULK, CHECKED
from ensconce.errors import InputError

__all__ = ["LIBOS", "RUNTIME", "SYSTEM", "close"]

# What the replica checks itself, in the order in which it is needed: extension modules, each behind the folder with
# the libraries that it loads.
_BULK = (
    ("", "pydantic_core._pydantic_core"),
    ("", "cryptography.hazmat.bindings._rust"),
    ("numpy.libs", "numpy._core._multiarray_umath"),
    ("openvino/libs", "openvino._pyopenvino"),
)

_ASIDE = Path(BULK).name

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
    bulk = tuple(_bulk(image.files))
    aside = {file for file, _ in bulk}
    try:
        for folder in (RUNTIME, SYSTEM, _ASIDE):
            (out / folder).mkdir()
        files = [_write(out, LIBOS, gramine.libos.read_bytes())]
        interpreter = ""
        for file in image.system_files:
            target = _take_in(Path(file.path), out, gramine)
            files.append(target)
            if file.path == image.interpreter:
                interpreter = target.path
                # Gramine starts what could be started outside.
                (out / interpreter).chmod(0o755)
        if bulk:
            files.append(_set_aside(bulk, out))
        for file in image.files:
            if file not in aside:
                files.append(_moved(out, file.path, file.path) if _is_library(file) else file)
    except OSError as error:
        raise InputError(
            "image.stage",
            f"cannot stage the image: {error.strerror or error}",
            found=str(error.filename or out),
            remedy="free some space, or check the permissions",
        ) from error
    return dataclasses.replace(
        image,
        interpreter=interpreter,
        files=tuple(sorted({*files})),
        system_files=(),
        bulk=tuple(file for file, _ in bulk),
    )


def _take_in(path: Path, out: Path, gramine: Gramine) -> ImageFile:
    """Copy a file of the system, or Gramine's own of that name."""
    # A library is looked for by the name it states; the interpreter, a program, states none.
    name = soname(path.read_bytes()) or path.name
    own, target = gramine.runtime / name, f"{RUNTIME}/{name}"
    if (out / target).is_file():
        # Asked for by two paths, or Gramine's own path is one of them.
        return hash_file(out / target, target)
    if own.is_file():
        return _write(out, target, own.read_bytes())
    return _write(out, f"{SYSTEM}/{name}", path.read_bytes())


def _bulk(files: Sequence[ImageFile]) -> Iterator[tuple[ImageFile, str]]:
    """What Gramine lets pass, each with the module that it is, if it is one."""
    for folder, module in _BULK:
        stem = f"{site()}/{module.replace('.', '/')}."
        if (extension := next((file for file in files if file.path.startswith(stem)), None)) is not None:
            libraries = [file for file in files if str(Path(file.path).parent) == f"{site()}/{folder}"]
            yield from ((file, "") for file in sorted(libraries, key=lambda file: (file.size, file.path)))
            yield extension, module


def _set_aside(bulk: Sequence[tuple[ImageFile, str]], out: Path) -> ImageFile:
    """Move libraries to where Gramine lets them pass, and list them."""
    entries = []
    for file, module in bulk:
        name = Path(file.path).name
        moved = _moved(out, file.path, f"{_ASIDE}/{name}")
        entries.append(
            {
                "file": f"{BULK}/{name}",
                "target": f"{CHECKED}/{name}",
                "size": moved.size,
                "sha256": moved.sha256,
                "module": module,
            }
        )
    listing = json.dumps(entries, indent=1).encode()
    (out / Path(INDEX).name).write_bytes(listing)
    return hash_file(out / Path(INDEX).name, Path(INDEX).name)


def _is_library(file: ImageFile) -> bool:
    return ".so" in Path(file.path).name


def _moved(out: Path, source: str, target: str) -> ImageFile:
    data = (out / source).read_bytes()
    (out / source).unlink()
    return _write(out, target, data)


def _write(out: Path, target: str, data: bytes) -> ImageFile:
    """Write a library or a program, without what is never loaded: each megabyte costs 10 ms of Gramine's start."""
    part = loaded_part(data)
    with (out / target).open("xb") as file:
        file.write(part)
    return ImageFile(target, len(part), hashlib.sha256(part).hexdigest())
