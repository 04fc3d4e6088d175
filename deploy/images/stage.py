"""Stage what enclaves of one kind execute, and say of what Python packages it is.

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
from ensconce.enclave.tensorflow_serving_build import find_program, stage_program


def main() -> None:
    """Do it, and print how much it is."""
    _, kind, folder = sys.argv
    out = Path(folder)
    tree = out / "enclave" / "image"
    tree.parent.mkdir(parents=True)
    names = [] if kind == "tensorflow-serving" else [*(each.name for each in distributions()), "ensconce"]
    match kind:
        case "tensorflow-serving":
            image = stage_program(find_program(), tree, Gramine.find())
        case "simulated" | "gramine":
            with tempfile.TemporaryDirectory() as cache:
                image = build_image(tree, cache=LayerCache(Path(cache)))
            if kind == "gramine":
                image = close(cut(image, tree), tree, Gramine.find())
        case _:
            sys.exit(f"no enclaves of kind {kind} can be staged")
    (out / "names.json").write_text(json.dumps(sorted(names)))
    sys.stdout.write(f"{len(image.files)} files, {image.size} bytes\n")


if __name__ == "__main__":
    main()
