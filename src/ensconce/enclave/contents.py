"""What goes into an enclave's image: which files of Python, of which distributions, and which modules of Ensconce.

Only code goes in: ``.py`` files, to be compiled, and shared objects. Data files, type stubs, headers, entry points and
package metadata stay out; nothing inside looks for them. Every name that is let in or kept out is in this module, so
that a change of the trusted base is a change of these lists.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.machinery
import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ensconce.errors import InputError

__all__ = [
    "ENTRY_MODULE",
    "GRAMINE_ENTRY_MODULE",
    "NEVER_INSIDE",
    "Item",
    "distribution_items",
    "distributions",
    "own_items",
    "site",
    "stdlib",
    "stdlib_items",
    "unwelcome",
]

ENTRY_MODULE = "ensconce.enclave.replica"
GRAMINE_ENTRY_MODULE = "ensconce.enclave.early"

# What the replica imports of others; whatever these require comes along.
_ROOTS = (
    "cryptography",
    "hpack",
    "numpy",
    "openvino",
    "protobuf",
    "pydantic",
    "pyopenssl",
)

# Distributions that must not run inside, whatever requires them, with the reason.
NEVER_INSIDE = {"openvino-telemetry": "it reports usage over the network"}

# Required by the metadata of a distribution above, and not needed by what we use of it.
_NOT_NEEDED = frozenset({"pycparser"})

# Parts of the standard library that a server has no use for: tests, user interfaces, installers, and modules whose
# native halves would bring further system libraries in.
_STDLIB_OUT = (
    "_pyrepl",
    "antigravity",
    "config-*",
    "crypt",
    "curses",
    "dbm",
    "dist-packages",
    "distutils",
    "doctest",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "mailbox",
    "msilib",
    "nntplib",
    "pydoc",
    "pydoc_data",
    "sitecustomize",
    "site-packages",
    "sqlite3",
    "test",
    "this",
    "tkinter",
    "turtle",
    "turtledemo",
    "unittest",
    "usercustomize",
    "venv",
    "xmlrpc",
    "__pycache__",
    "__phello__",
    "lib-dynload",
)
_DYNLOAD_OUT = (
    "_codecs_cn.*",
    "_codecs_hk.*",
    "_codecs_iso2022.*",
    "_codecs_jp.*",
    "_codecs_kr.*",
    "_codecs_tw.*",
    "_crypt.*",
    "_ctypes_test.*",
    "_curses*",
    "_dbm.*",
    "_gdbm.*",
    "_sqlite3.*",
    "_test*",
    "_tkinter.*",
    "_xx*",
    "nis.*",
    "ossaudiodev.*",
    "readline.*",
    "xx*",
)

# Paths of third-party distributions that stay out. Tests first; then what is never reached from a server of
# OpenVINO models: other hardware, other model formats, converters, build tools, and what parses the host's /sys.
_SITE_OUT = (
    "*/tests/*",
    "*/conftest.py",
    "cffi/*",
    "google/protobuf/compiler/*",
    "google/protobuf/testdata/*",
    "numpy/_core/*_tests.*",
    "numpy/_core/_simd.*",
    "numpy/_core/include/*",
    "numpy/_core/lib/*",
    "numpy/_pyinstaller/*",
    "numpy/distutils/*",
    "numpy/f2py/*",
    "numpy/fft/*",
    "numpy/ma/*",
    "numpy/polynomial/*",
    "numpy/random/*",
    "numpy/testing/*",
    "numpy/typing/*",
    "openvino/cmake/*",
    "openvino/frontend/?*/*",
    "openvino/include/*",
    "openvino/libs/libhwloc.*",
    "openvino/libs/libopenvino_auto_*",
    "openvino/libs/libopenvino_c.*",
    "openvino/libs/libopenvino_gguf_*",
    "openvino/libs/libopenvino_hetero_*",
    "openvino/libs/libopenvino_intel_gpu_*",
    "openvino/libs/libopenvino_intel_npu_*",
    "openvino/libs/libopenvino_jax_*",
    "openvino/libs/libopenvino_onnx_*",
    "openvino/libs/libopenvino_paddle_*",
    "openvino/libs/libopenvino_pytorch_*",
    "openvino/libs/libopenvino_tensorflow_*",
    "openvino/libs/libtbbbind_*",
    "openvino/libs/libtbbmalloc_proxy.*",
    "openvino/tools/*",
    "openvino/torch/*",
    "pydantic/mypy.py",
    "pydantic/v1/*",
    "pydantic/_hypothesis_plugin.py",
)

_SHARED_OBJECT = re.compile(r"\.so(\.\d+)*$")


@dataclass(frozen=True, order=True)
class Item:
    """One file to stage.

    Attributes:
        target: where it goes, relative to the image; for a source, the name it has before it is compiled.
        source: the file on this machine.
    """

    target: str
    source: Path

    @property
    def is_source(self) -> bool:
        """It is Python to compile; otherwise a shared object to copy."""
        return self.target.endswith(".py")


def stdlib() -> str:
    """The folder of the standard library inside the image, as an interpreter with that PYTHONHOME expects it."""
    return f"{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"


def site() -> str:
    """The folder of everything else inside the image."""
    return "site"


def stdlib_items() -> list[Item]:
    """The standard library of the running interpreter, without what a server has no use for."""
    items = []
    folder = Path(sysconfig.get_path("stdlib"))
    for entry in folder.iterdir():
        if not _matches(entry.name.removesuffix(".py"), _STDLIB_OUT):
            items += [Item(f"{stdlib()}/{path.relative_to(folder)}", path) for path in _sources(entry)]
    for path in (Path(sys.base_exec_prefix) / stdlib() / "lib-dynload").glob("*.so"):
        ours = path.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
        if ours and not _matches(path.name, _DYNLOAD_OUT):
            items.append(Item(f"{stdlib()}/lib-dynload/{path.name}", path))
    return sorted(items)


def distributions() -> list[importlib.metadata.Distribution]:
    """The distributions that the server needs inside, and all that these require, sorted by name.

    Raises:
        InputError: one is not installed, or was installed without a list of its files.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(name, "the server", True) for name in _ROOTS]
    while waiting:
        name, needed_by, must = waiting.pop()
        if name in found or name in NEVER_INSIDE or name in _NOT_NEEDED:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if must:
                raise InputError(
                    "image.distribution",
                    f"{name} is not installed, and {needed_by} needs it inside the enclave",
                    remedy=f"install it into the environment of {sys.executable}",
                ) from None
            continue
        for requirement in found[name].requires or ():
            wanted, _, marker = requirement.partition(";")
            if "extra" not in marker:
                # A marker may exclude this machine; then the distribution is not there, and that is right.
                waiting.append((_canonical(re.split(r"[^\w.-]", wanted.strip())[0]), name, not marker))
    for name, distribution in found.items():
        if distribution.files is None:
            raise InputError(
                "image.distribution",
                f"{name} was installed without a list of its files",
                rule="a RECORD in its metadata",
                remedy="install it with pip into a virtual environment",
            )
    return [found[name] for name in sorted(found)]


def unwelcome() -> tuple[str, ...]:
    """The distributions installed here that must never run inside; the image leaves them out."""
    installed = []
    for name in NEVER_INSIDE:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        installed.append(name)
    return tuple(installed)


def distribution_items(distribution: importlib.metadata.Distribution) -> list[Item]:
    """The code of one distribution, without what the lists above keep out."""
    items = []
    for file in distribution.files or ():
        path = str(file)
        if ".." in file.parts or _matches(path, _SITE_OUT):
            continue
        if path.endswith(".py") or _SHARED_OBJECT.search(path):
            items.append(Item(f"{site()}/{path}", Path(str(distribution.locate_file(file)))))
    return sorted(set(items))


def own_items(package: Path) -> list[Item]:
    """The modules of Ensconce that the replica can reach, found by following import statements from where it begins.

    An import inside a function counts, one under ``if TYPE_CHECKING:`` does not.

    Args:
        package: the folder of the package ``ensconce``.

    Raises:
        InputError: the entry module is missing.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = [ENTRY_MODULE, GRAMINE_ENTRY_MODULE]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _module_file(package, name)
        if path is not None:
            found[name] = path
            waiting += _imports(name, path)
    if ENTRY_MODULE not in found:
        raise InputError("image.entry", f"{ENTRY_MODULE} is not in {package}", remedy="install Ensconce again")
    return sorted(Item(f"{site()}/ensconce/{path.relative_to(package)}", path) for path in found.values())


def _imports(name: str, path: Path) -> Iterator[str]:
    """The modules of Ensconce that the module imports, and the packages that these lie in."""
    for node in _statements_that_run(ast.parse(path.read_bytes(), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                keep = len(parts) - node.level + (path.name == "__init__.py")
                base = ".".join([*parts[:keep], *([base] if base else [])])
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for imported in names:
            parts = imported.split(".")
            if parts[0] == "ensconce":
                yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    if "." in name:
        yield name.rpartition(".")[0]


def _statements_that_run(node: ast.AST) -> Iterator[ast.AST]:
    """The node and the statements in it; no expression, for none of them imports."""
    yield node
    types_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    for child in node.orelse if isinstance(node, ast.If) and types_only else ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements_that_run(child)


def _module_file(package: Path, name: str) -> Path | None:
    path = package.joinpath(*name.split(".")[1:])
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def _sources(entry: Path) -> Iterable[Path]:
    if entry.is_dir():
        return (
            path
            for path in entry.rglob("*.py")
            if not {"test", "tests", "__pycache__"} & set(path.relative_to(entry).parts)
        )
    return (entry,) if entry.suffix == ".py" else ()


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
