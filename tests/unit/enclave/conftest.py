"""An image is staged once for the whole session; everything that needs a real one shares it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ensconce.enclave.config import ModelConfig
from ensconce.enclave.image import Image, build_image
from ensconce.enclave.layers import ImageFile, LayerCache
from ensconce.enclave.manifest import EnclaveSpec


@dataclass(frozen=True)
class Staged:
    """A real image, where it lies, the cache that now has it, and what was said while it was made."""

    image: Image
    folder: Path
    cache: LayerCache
    said: tuple[str, ...]


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    base = tmp_path_factory.mktemp("image")
    cache = LayerCache(base / "xdg" / "ensconce" / "images")
    said: list[str] = []
    image = build_image(base / "image", progress=said.append, cache=cache)
    return Staged(image, base / "image", cache, tuple(said))


@pytest.fixture
def xdg_cache(staged: Staged, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default cache is the session's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(staged.cache.folder.parents[1]))
    return staged.cache.folder


@pytest.fixture
def spec() -> EnclaveSpec:
    return EnclaveSpec(
        domain="digits.example.test",
        models=(ModelConfig(name="digits"),),
        provisioning_servers=("127.0.0.1:4433",),
        provisioning_server_name="provisioning.example.test",
        ca_pem="-----BEGIN CERTIFICATE-----\n",
    )


@pytest.fixture
def small_image() -> Image:
    """An image as manifests see it, without any files."""
    python, library = (ImageFile(path, 1, "ab" * 32) for path in ("/usr/bin/python3.11", "/usr/lib/libc.so.6"))
    code = (ImageFile("lib/python3.11/os.pyc", 2, "cd" * 32), ImageFile("site/ensconce/errors.pyc", 3, "ef" * 32))
    return Image(python.path, code, (python, library), ())
