"""Stage what enclaves of one kind execute, and say of what packages it is.

Run where enclaves are built, ``python -I stage.py KIND FOLDER``. ``FOLDER/enclave`` is then what ``enclave`` of a
bundle is before an owner's configuration, manifest and signature lie in it; ``FOLDER/names.json`` is for the bill of
materials.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ensconce.enclave.closing import close
from ensconce.enclave.contents import distributions
from ensconce.enclave.gramine import Gramine
from ensconce.enclave.image import build_image
from ensconce.enclave.layers import LayerCache
from ensconce.enclave.reach import cut


def main() -> None:
    """Do it, and print the staged tree's digest."""
    _, kind, folder = sys.argv
    if kind not in ("simulated", "gramine"):
        sys.exit(f"no enclaves of kind {kind} can be staged")
    out = Path(folder)
    (out / "enclave").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as cache:
        image = build_image(out / "enclave" / "image", cache=LayerCache(Path(cache)))
    if kind == "gramine":
        tree = out / "enclave" / "image"
        image = close(cut(image, tree), tree, Gramine.find())
    names = [distribution.name for distribution in distributions()]
    (out / "names.json").write_text(json.dumps(sorted([*names, "ensconce"])))
    sys.stdout.write(f"{len(image.files)} files, {image.size} bytes, SHA-256 {image.tree_sha256.hex()}\n")


if __name__ == "__main__":
    main()
