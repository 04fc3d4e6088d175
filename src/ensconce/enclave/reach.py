"""Cutting an image to what can be opened: every module that an import statement leads to, and nothing else of Python.

Each file in a manifest costs its measurement and its start: Gramine reads the whole list first. The cut follows all
import statements of what is loaded, those inside functions too, so that what is imported late is there. What is
imported without a statement (by a library's native half, or by its name at run time) is in :data:`_BY_NAME`, or was
loaded when the image was tried. The cut is tried, too: the image must still load what it loaded before.
"""

from __future__ import annotations

import dataclasses
import dis
import marshal
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensconce.enclave import trace
from ensconce.enclave.contents import site, stdlib
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile
from ensconce.errors import InputError

__all__ = ["cut"]

# Codecs, by the name of a text; dates, by datetime's native half; callbacks, by cryptography's; engines, by ours.
_BY_NAME = ("encodings", "_strptime", "_cffi_backend", "openvino")
_ENGINES = ("numpy", "openvino")
_HEADER = 16


def cut(image: Image, out: Path) -> Image:
    """Remove from ``out``, its folder, what no import statement leads to.

    Raises:
        InputError: ``image.trace``, ``image.cut``: the image does not load, or not as before.
    """
    modules = {_name(file.path): file for file in image.files if _name(file.path)}
    ours = sorted(name for name in modules if name.partition(".")[0] == "ensconce")
    tried = [*ours, *_ENGINES]
    loaded = trace.loaded_modules(out, tried)
    roots = {*ours, *loaded}
    roots |= {name for name in modules if name.partition(".")[0] in _BY_NAME}
    found: set[str] = set()
    waiting = [name for name in roots if name in modules]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [each for each in _leads_to(name, modules[name], out) if each in modules]
    gone = {file for name, file in modules.items() if name not in found}
    for file in gone:
        (out / file.path).unlink()
    if trace.loaded_modules(out, tried) != loaded:
        raise InputError(
            "image.cut",
            "the image loads other modules once it is cut to what import statements lead to",
            remedy="report this with the versions of Python and of the packages",
        )
    return dataclasses.replace(image, files=tuple(file for file in image.files if file not in gone))


def _name(path: str) -> str:
    """The module that a file of the image is, or nothing if it is a library."""
    for folder in (f"{stdlib()}/lib-dynload/", f"{stdlib()}/", f"{site()}/"):
        if path.startswith(folder):
            stem = path.removeprefix(folder)
            if stem.endswith(".pyc"):
                return stem.removesuffix(".pyc").removesuffix("/__init__").replace("/", ".")
            last = stem.rpartition("/")[2]
            # Extension modules say for which Python they are; what other programs link to begins with lib.
            return "" if last.startswith("lib") else stem.partition(".")[0].replace("/", ".")
    return ""


def _leads_to(name: str, file: ImageFile, out: Path) -> Iterator[str]:
    """The modules that the import statements of one may mean, and the packages that these lie in."""
    yield from _packages(name)
    if not file.path.endswith(".pyc"):
        return
    package = name if file.path.endswith("/__init__.pyc") else name.rpartition(".")[0]
    waiting = [marshal.loads((out / file.path).read_bytes()[_HEADER:])]  # noqa: S302 - we compiled it
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        pushed: list[Any] = []
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                level, names = pushed[-2:]
                base = str(step.argval)
                if level:
                    parts = package.split(".")
                    base = ".".join([*parts[: len(parts) - level + 1], *([base] if base else [])])
                for each in (base, *(f"{base}.{part}" for part in names or ())):
                    yield each
                    yield from _packages(each)
            elif step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):  # the latter from Python 3.14 on
                pushed.append(step.argval)


def _packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts)))
