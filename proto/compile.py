"""Compile the ``.proto`` files of this folder into ``src/ensconce/tfserving/descriptors.py`` (needs grpcio-tools).

The result is a Python module, and not a data file, because an enclave's image holds modules only.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import textwrap
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "src" / "ensconce" / "tfserving" / "descriptors.py"
HEADER = '''"""The compiled message descriptors. Made by ``python proto/compile.py`` from ``proto/``; do not edit."""

from __future__ import annotations

import base64

__all__ = ["DESCRIPTOR_SET"]

DESCRIPTOR_SET = base64.b64decode(
    """
{}
    """
)
'''


def compile_protos(folder: Path = PROTO) -> FileDescriptorSet:
    """Every ``.proto`` file below ``folder``, and what they import, each file after those that it imports."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "set"
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [f"-I{folder}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}", *files]
        if protoc.main(["protoc", *arguments]) != 0:
            raise SystemExit("protoc refused the files")
        return FileDescriptorSet.FromString(out.read_bytes())


def main() -> None:
    """Write the module."""
    data = base64.b64encode(compile_protos().SerializeToString(deterministic=True)).decode()
    TARGET.write_text(HEADER.format(textwrap.fill(data, 120)))
    sys.stdout.write(f"{TARGET.name}: {len(data) * 3 // 4} bytes of descriptors\n")


if __name__ == "__main__":
    main()
