"""Which modules stay; that a whole image runs after the cut is shown in tests/interop/gramine."""

from __future__ import annotations

import py_compile
from collections.abc import Sequence
from pathlib import Path

import pytest

from ensconce.enclave import trace
from ensconce.enclave.contents import stdlib
from ensconce.enclave.image import Image
from ensconce.enclave.layers import ImageFile, hash_file
from ensconce.enclave.reach import cut
from ensconce.errors import InputError

ALWAYS = ("ensconce/__init__", "ensconce/enclave/__init__")


def staged(out: Path, **sources: str) -> Image:
    """An image of modules of Python, and libraries, in ``site`` and in the standard library."""
    files = []
    for name, text in {**dict.fromkeys(ALWAYS, ""), **sources}.items():
        folder = stdlib() if name.startswith("std/") else "site"
        target = out / folder / name.removeprefix("std/")
        if ".so" in name:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        else:
            source = out.parent / "sources" / f"{name}.py"
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_text(text)
            target = target.with_suffix(".pyc")
            py_compile.compile(str(source), str(target), doraise=True)
        files.append(hash_file(target, str(target.relative_to(out))))
    return Image("python", tuple(sorted(files)), (), ())


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What the interpreter says that it has loaded, once before the cut and once after it."""
    says: list[Sequence[str]] = [("sys",), ("sys",)]
    monkeypatch.setattr(trace, "loaded_modules", lambda _out, _tried: says.pop(0))
    return says


def kept(out: Path, image: Image) -> set[str]:
    """The modules that stay, on disk as in the list."""
    listed = {file.path for file in cut(image, out).files}
    assert listed == {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    inside = {path.removeprefix("site/").removeprefix(f"{stdlib()}/").removesuffix(".pyc") for path in listed}
    return inside - set(ALWAYS)


@pytest.mark.parametrize(
    "statement",
    [
        "import a.b.c",
        "import x, a.b.c as short",
        "from a.b import c",
        "from a.b import y, c",
        "from a.b.c import name",
        "def f():\n    import a.b.c",
        "class C:\n    def f(self):\n        return [lambda: __import__('x') for _ in ()]\nfrom a.b.c import *",
        "async def f():\n    def g():\n        from a.b import c",
    ],
)
@pytest.mark.usefixtures("loaded")
def test_whatever_a_statement_leads_to_stays_with_its_packages(tmp_path: Path, statement: str) -> None:
    names = ("a/__init__", "a/b/__init__", "a/b/c", "a/other", "a/b/d/__init__")
    image = staged(tmp_path / "image", **{"ensconce/enclave/replica": statement, **dict.fromkeys(names, "")})
    assert kept(tmp_path / "image", image) == {"ensconce/enclave/replica", "a/__init__", "a/b/__init__", "a/b/c"}


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("a/b/c", "from . import d"),
        ("a/b/c", "from .d import name"),
        ("a/b/c", "from ..b import d"),
        ("a/b/c", "from .. import b\nfrom ..b.d import name"),
        ("a/b/__init__", "from . import d\nfrom . import c"),
        ("a/b/__init__", "from .d import name\nfrom .. import b\nfrom .c import name"),
    ],
)
@pytest.mark.usefixtures("loaded")
def test_relative_statements_lead_from_where_they_stand(tmp_path: Path, module: str, statement: str) -> None:
    names = ("a/__init__", "a/b/__init__", "a/b/c", "a/b/d", "a/d", "d")
    sources = {**dict.fromkeys(names, ""), "ensconce/enclave/replica": "import a.b.c", module: statement}
    image = staged(tmp_path / "image", **sources)
    assert kept(tmp_path / "image", image) == {
        "ensconce/enclave/replica", "a/__init__", "a/b/__init__", "a/b/c", "a/b/d",
    }  # fmt: skip


@pytest.mark.usefixtures("loaded")
def test_statements_are_followed_from_module_to_module_and_in_circles(tmp_path: Path) -> None:
    sources = {"ensconce/a": "import b", "b": "import std_c", "std/std_c": "import b, fast", "std/unused": "import b"}
    libraries = {"std/lib-dynload/fast.cpython-311-x86_64-linux-gnu.so": "", "std/lib-dynload/slow.abi3.so": ""}
    image = staged(tmp_path / "image", **sources, **libraries)
    there = kept(tmp_path / "image", image)
    assert there == {"ensconce/a", "b", "std_c", "lib-dynload/fast.cpython-311-x86_64-linux-gnu.so"}


@pytest.mark.usefixtures("loaded")
def test_what_is_looked_for_by_name_and_what_others_link_to_stays(tmp_path: Path) -> None:
    kinds = ("encodings/__init__", "encodings/cp1252", "_strptime", "openvino/__init__", "openvino/opset8/ops")
    libraries = ("openvino/libs/libopenvino.so.2641", "numpy.libs/libblas.so", "_cffi_backend.abi3.so")
    image = staged(tmp_path / "image", **dict.fromkeys((*kinds, *libraries, "other", "other_fast.abi3.so"), ""))
    assert kept(tmp_path / "image", image) == {*kinds, *libraries}


def test_what_was_loaded_without_a_statement_stays(tmp_path: Path, loaded: list[Sequence[str]]) -> None:
    loaded[:] = [("sys", "by_hand")] * 2
    image = staged(tmp_path / "image", by_hand="import more", more="", other="")
    assert kept(tmp_path / "image", image) == {"by_hand", "more"}


def test_an_image_that_loads_otherwise_is_refused(tmp_path: Path, loaded: list[Sequence[str]]) -> None:
    loaded[:] = [("sys", "a"), ("sys",)]
    with pytest.raises(InputError) as caught:
        cut(staged(tmp_path / "image", a=""), tmp_path / "image")
    assert caught.value.check == "image.cut"


def test_what_does_not_load_at_all_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "image"
    with pytest.raises(InputError) as caught:
        cut(staged(out, **{"ensconce/enclave/replica": "import not_there"}), out)
    assert caught.value.check == "image.trace"


@pytest.mark.usefixtures("loaded")
def test_what_the_image_has_beside_files_is_as_it_was(tmp_path: Path) -> None:
    image = staged(tmp_path / "image", a="")
    system = (ImageFile("/usr/bin/python3", 1, "ab" * 32),)
    there = cut(Image("python", image.files, system, ("left-out",)), tmp_path / "image")
    assert (there.interpreter, there.system_files, there.left_out) == ("python", system, ("left-out",))
