"""What a host may lay beside an enclave, and say when it starts it: nothing of it runs inside."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

EVIL = "import os\nos.write(1, b'EVIL\\n')\n"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def folder(owner: Any) -> Path:
    """A replica's folder, whose enclave would get its key."""
    owner.seal()
    owner.accept(owner.build().mr_enclave)
    made: Path = owner.folder()
    owner.attest(made)
    return made


def plant(image: Path) -> None:
    """Everything that an interpreter or a loader of programs is known to look for."""
    (image / "site" / "sitecustomize.py").write_text(EVIL)
    (image / "site" / "usercustomize.py").write_text(EVIL)
    (image / "site" / "evil.pth").write_text("import os; os.write(1, b'EVIL')\n")
    (image / "system" / "pyvenv.cfg").write_text("home = /models\ninclude-system-site-packages = true\n")
    (image / "pyvenv.cfg").write_text("home = /models\n")
    for name in (f"{PYTHON}._pth", "python._pth", "pybuilddir.txt"):
        (image / "system" / name).write_text("/models\nimport site\n")
    with zipfile.ZipFile(image / "lib" / f"{PYTHON.replace('.', '')}.zip", "w") as archive:
        archive.writestr("encodings/__init__.py", EVIL)
    for name in ("libtcm.so.1", "libiomp5.so", "libnss_files.so.2", "libgcc_s.so.1", "libtbbbind_2_5.so.3"):
        for place in ("system", "bulk", "checked", "site"):
            target = image / place / name
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                target.write_bytes(b"\x7fELF EVIL")


def outside(folder: Path) -> None:
    """Around the enclave's folder, and where its model lies."""
    etc = folder / "etc"
    etc.mkdir()
    (etc / "ld.so.preload").write_text("/models/evil.so\n")
    (etc / "nsswitch.conf").write_text("hosts: evil\n")
    (etc / "hosts").write_text("192.0.2.66 provisioning.example.test\n")
    (etc / "ssl").mkdir()
    (etc / "ssl" / "openssl.cnf").write_text("openssl_conf = x\n[x]\nengines = y\n[y]\nz = /models/evil.so\n")
    for name in ("os.py", "json.py", "ensconce.py", "numpy.py", "sitecustomize.py"):
        (folder / name).write_text(EVIL)
        (folder / "models" / name).write_text(EVIL)


def test_what_a_host_lays_beside_it_and_says_at_the_start_changes_nothing(owner: Any, folder: Path) -> None:
    plant(folder / "enclave" / "image")
    outside(folder)
    replica = owner.start(
        folder,
        *("gramine-direct", "enclave/server", "-c", EVIL),
        PYTHONPATH="/models",
        PYTHONSTARTUP="/models/os.py",
        PYTHONINSPECT="1",
        OPENSSL_CONF="/etc/ssl/openssl.cnf",
        GCONV_PATH="/models",
    )
    assert replica.ready()["servables"] == ["digits/1"]
    replica.stop()
    assert "EVIL" not in (folder / "out").read_text() + replica.errors()


def test_what_is_measured_is_not_changed(owner: Any, folder: Path) -> None:
    for target in (
        "enclave/server.json",
        "enclave/hosts",
        "enclave/image/bulk.json",
        "enclave/image/site/ensconce/enclave/early.pyc",
        f"enclave/image/lib/{PYTHON}/json/__init__.pyc",
    ):
        path = folder / target
        sound = path.read_bytes()
        path.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        replica = owner.start(folder)
        assert replica.child.wait(60) != 0, target
        assert not (folder / "ready.json").exists(), target
        path.write_bytes(sound)
    # So it was for the changed byte each time.
    replica = owner.start(folder)
    assert replica.ready()
    replica.stop()
