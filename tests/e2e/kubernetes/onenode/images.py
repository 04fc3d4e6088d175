"""Container images as archives for containerd: made from nothing but files, or from others with files changed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NAME = "org.opencontainers.image.ref.name"


def name_in(archive: Path) -> str:
    """The name of the image in an OCI archive."""
    with tarfile.open(archive) as tar:
        name: str = _read(tar, "index.json")["manifests"][0]["annotations"][_NAME]
    return name


def change_image(archive: Path, changed: Path, name: str, files: Mapping[str, bytes]) -> None:
    """Write the image of an OCI archive under another name, with one more layer, in which some files are others."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, data in files.items():
            _add(tar, path.lstrip("/"), data)
    with tarfile.open(archive) as source, tarfile.open(changed, "w") as target:
        index = _read(source, "index.json")
        manifest = _read(source, _blob(index["manifests"][0]["digest"]))
        config = _read(source, _blob(manifest["config"]["digest"]))
        for member in source:
            if member.isfile() and member.name != "index.json":
                target.addfile(member, source.extractfile(member))
        added = _add_blob(target, layer.getvalue())
        manifest["layers"].append({"mediaType": "application/vnd.oci.image.layer.v1.tar", **added})
        config["rootfs"]["diff_ids"].append(added["digest"])
        # There is one entry of it for each layer, or it is left out.
        config.pop("history", None)
        manifest["config"] |= _add_blob(target, json.dumps(config).encode())
        index["manifests"] = [index["manifests"][0] | _add_blob(target, json.dumps(manifest).encode())]
        index["manifests"][0]["annotations"] = {_NAME: name}
        _add(target, "index.json", json.dumps(index).encode())


def write_image(archive: Path, name: str, files: Mapping[str, Path], entrypoint: Sequence[str]) -> None:
    """An image called ``name`` of one layer with ``files`` (path in the image: file here), run as nobody."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, source in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = source.stat().st_size, source.stat().st_mode & 0o777
            with source.open("rb") as content:
                tar.addfile(member, content)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for path, data in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            _add(tar, path, data)


def _read(tar: tarfile.TarFile, path: str) -> Any:
    content = tar.extractfile(path)
    assert content is not None
    return json.load(content)


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(tar: tarfile.TarFile, path: str, data: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _add_blob(tar: tarfile.TarFile, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add(tar, _blob(digest), data)
    return {"digest": digest, "size": len(data)}
