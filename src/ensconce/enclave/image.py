"""The image: everything that a replica executes, staged into one folder, the same bytes from the same inputs.

``<out>/lib/python3.X`` is a Python home with the standard library, ``<out>/site`` holds the distributions and the
modules of Ensconce that a replica needs. Python is compiled to sourceless, hash-based ``.pyc`` files: SGX gives no
trustworthy time stamps to compare, and the loader then opens one file per module. What the interpreter needs of the
system (itself, the C library, OpenSSL) stays where it is and is named by absolute path.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ensconce
from ensconce.enclave import compiler, contents, trace
from ensconce.enclave.contents import Item
from ensconce.enclave.layers import ImageFile, LayerCache, copy_all, default_cache, hash_file
from ensconce.errors import InputError

__all__ = ["Image", "build_image"]

_MODULES_OF = {"openvino-telemetry": "openvino_telemetry"}


@dataclass(frozen=True)
class Image:
    """A staged image.

    Attributes:
        interpreter: absolute real path of the Python interpreter, one of ``system_files``.
        files: the files of the image, sorted by path.
        system_files: files of the system that it needs, by absolute path, sorted.
        left_out: distributions that are installed and must never run inside; the image does not have them.
        bulk: libraries of the image that the replica itself checks (:mod:`ensconce.enclave.early`), by the paths that
            they had; no manifest lists them.
    """

    interpreter: str
    files: tuple[ImageFile, ...]
    system_files: tuple[ImageFile, ...]
    left_out: tuple[str, ...]
    bulk: tuple[ImageFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files of the image together."""
        return sum(file.size for file in self.files)


def build_image(out: Path, *, progress: Callable[[str], None] | None = None, cache: LayerCache | None = None) -> Image:
    """Stage the image for the interpreter and the distributions of the running process.

    Args:
        out: a folder that does not exist yet; its parent does.
        progress: is told each step in a few words.
        cache: where layers are kept; by default ``$XDG_CACHE_HOME/ensconce/images``.

    Raises:
        InputError: a distribution is missing, the disk is full, or the image does not run by itself. Then ``out``
            is gone again.
    """
    tell = progress or (lambda _: None)
    cache = cache or LayerCache(default_cache())
    try:
        out.mkdir()
    except OSError as error:
        raise InputError("image.create", f"cannot make {out}: {error.strerror}", remedy="check the path") from error
    try:
        return _fill(out, tell, cache)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise InputError(
            "image.stage",
            f"cannot stage the image: {error.strerror or error}",
            found=str(error.filename or out),
            remedy="free some space, or check the permissions",
        ) from error
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def _fill(out: Path, tell: Callable[[str], None], cache: LayerCache) -> Image:
    left_out = contents.unwelcome()
    for name in left_out:
        tell(f"{name} is installed ({contents.NEVER_INSIDE[name]}): the image leaves it out")
    items = contents.stdlib_items()
    for distribution in contents.distributions():
        items += contents.distribution_items(distribution)
    own = contents.own_items(Path(ensconce.__file__).parent)

    base_key = _key(_builder(), *map(_stat, items))
    restored = cache.restore(base_key, out)
    if restored is None:
        tell(f"compiling and copying {len(items)} files of Python and its packages")
        base = _stage(items, out)
        _expect(base_key, _key(_builder(), *map(_stat, items)))
        cache.save(base_key, out, base)
    else:
        base = restored[0]

    own_key = _key(base_key, *map(_digest, own))
    restored = cache.restore(own_key, out)
    if restored is not None and all(_unchanged(file) for file in restored[1]):
        modules, system = restored
    else:
        tell(f"compiling {len(own)} modules of Ensconce and loading the image once")
        modules = _stage(own, out) if restored is None else restored[0]
        system = _trace(out, [item.target for item in own], [*base, *modules])
        _expect(own_key, _key(base_key, *map(_digest, own)))
        cache.drop(own_key)
        cache.save(own_key, out, modules, system)
    return Image(trace.interpreter_path(), tuple(sorted((*base, *modules))), system, left_out)


def _stage(items: Sequence[Item], out: Path) -> tuple[ImageFile, ...]:
    """Compile the sources and copy the shared objects."""
    sources = [item for item in items if item.is_source]
    count = max(1, min(os.cpu_count() or 1, len(sources)))
    with ThreadPoolExecutor(count) as pool:
        broken = set().union(*pool.map(lambda start: _compile(sources[start::count], out), range(count)))
    staged = [_pyc(item.target) for item in sources if str(item.source) not in broken]
    copied = copy_all(((item.source, item.target) for item in items if not item.is_source), out)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return tuple(sorted((*copied, *pool.map(lambda name: hash_file(out / name, name), staged))))


def _compile(sources: Sequence[Item], out: Path) -> set[str]:
    """Compile in a process of its own; returns the sources that are no Python of this version."""
    jobs = [(str(item.source), str(out / _pyc(item.target)), item.target) for item in sources]
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-B", compiler.__file__],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        raise InputError(
            "image.compile",
            "a file could not be compiled",
            found=(run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1][:300],
            remedy="free some space, or check that the packages are readable",
        )
    return set(json.loads(run.stdout))


def _trace(out: Path, own: Sequence[str], files: Sequence[ImageFile]) -> tuple[ImageFile, ...]:
    modules = [
        target.removeprefix(f"{contents.site()}/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for target in own
    ]
    found = trace.system_files(
        out,
        modules=modules,
        shared_objects=[file.path for file in files if not file.path.endswith(".pyc")],
        unwelcome=[_MODULES_OF[name] for name in contents.NEVER_INSIDE],
    )
    return tuple(hash_file(path, str(path)) for path in found)


def _pyc(target: str) -> str:
    return target.removesuffix(".py") + ".pyc"


def _unchanged(file: ImageFile) -> bool:
    try:
        return hash_file(Path(file.path), file.path) == file
    except OSError:
        return False


def _builder() -> tuple[str, ...]:
    """What decides how an image is made: our own code, and the interpreter."""
    interpreter = Path(trace.interpreter_path())
    modules = (contents.__file__, compiler.__file__, trace.__file__, __file__)
    return (
        sys.version,
        str(interpreter),
        str(interpreter.stat().st_mtime_ns),
        importlib.util.MAGIC_NUMBER.hex(),
        *(hashlib.sha256(Path(module).read_bytes()).hexdigest() for module in modules),
    )


def _stat(item: Item) -> tuple[str, str, int, int]:
    status = item.source.stat()
    return item.target, str(item.source), status.st_size, status.st_mtime_ns


def _digest(item: Item) -> tuple[str, str]:
    return item.target, hashlib.sha256(item.source.read_bytes()).hexdigest()


def _expect(before: str, after: str) -> None:
    """What was staged must be what the key was made of, or the cache would pass one off as the other."""
    if before != after:
        raise InputError("image.changed", "files changed while the image was made of them", remedy="try again")


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
