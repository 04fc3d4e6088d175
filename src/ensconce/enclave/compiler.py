"""A program of its own: compiles Python sources into sourceless ``.pyc`` files that depend on nothing but the source.

Run as ``python -I -S -B compiler.py`` with a JSON list of ``[source, target, name]`` on standard input. ``name`` is
what tracebacks show; it replaces the absolute path that would make the bytes differ between folders. The format is
PEP 552's unchecked hash-based pyc: it holds no time stamp, and the loader asks for no source. Sources that are no
Python of this version (a package's templates, code for other versions) cannot be imported anyway: they are left out,
and printed as a JSON list.
It imports nothing of Ensconce, so that starting it costs nothing.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import sys
import warnings
from pathlib import Path

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")


def compile_source(source: bytes, name: str) -> bytes:
    """The bytes of a ``.pyc`` file for ``source``.

    Raises:
        SyntaxError: this is no Python of this version.
        ValueError: it contains null bytes.
    """
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source)
    return header + marshal.dumps(code)


def main() -> None:
    """Compile what standard input lists."""
    warnings.simplefilter("ignore")
    broken = []
    for source, target, name in json.load(sys.stdin):
        try:
            data = compile_source(Path(source).read_bytes(), name)
        except (SyntaxError, ValueError):
            broken.append(source)
            continue
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(data)
    json.dump(broken, sys.stdout)


if __name__ == "__main__":
    main()
