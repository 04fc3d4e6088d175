"""``ensconce model``: import, seal, re-seal and retire versions of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ensconce.cli.model_import import fetch_model, import_model
from ensconce.cli.model_pull import pull_model
from ensconce.cli.output import print_json, progress_bar, remark, say, with_times
from ensconce.cli.owner import Owner, protect
from ensconce.servables import MAX_VERSION, key_id

__all__ = ["app"]

app = typer.Typer(help="The owner's models.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="The model's name, as ensconce.yaml lists it.")]
Version = Annotated[int, typer.Option("--version", min=1, max=MAX_VERSION, help="The version's number.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

_HERE = Path()


app.callback()(protect)
app.command("import")(import_model)
app.command("fetch")(fetch_model)
app.command("pull")(pull_model)


@app.command("seal")
def seal(
    source: Annotated[Path, typer.Argument(help="The version's folder, in the form that the engine reads.")],
    name: Name,
    version: Version,
    owner: Owner = _HERE,
    json: Json = False,
) -> None:
    """Encrypt one version of a model under a fresh key, into the bundle for the host.

    Examples:

      ensconce model seal examples/digits/openvino --name digits --version 1
    """
    from ensconce.cluster.owner import OwnerFolder

    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) if source.is_dir() else 0
    with progress_bar(f"sealing {name}/{version}", total) as progress:
        description = OwnerFolder.open(owner).seal_model(source, name, version, progress)
    if json:
        print_json(with_times(description.to_json_object(), "created"))
        return
    say(f"sealed {name}/{version} under key {description.key_id}:")
    for file in description.files:
        say(f"  {file.path}  {file.size} bytes  fingerprint {file.fingerprint}")


@app.command("reseal")
def reseal(name: Name, version: Version, owner: Owner = _HERE, json: Json = False) -> None:
    """Seal a version anew, under a fresh key, as the next version; it is opened in memory, from the owner's bundle.

    Then let the host have the new version, and retire the old one once no replica serves it.

    Examples:

      ensconce model reseal --name digits --version 1
    """
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.reseal import described, reseal_model

    folder = OwnerFolder.open(owner)
    total = sum(file.size for file in described(folder, name, version).files)
    with progress_bar(f"sealing {name}/{version} anew", total) as progress:
        description = reseal_model(folder, name, version, progress)
    if json:
        print_json(with_times(description.to_json_object(), "created"))
        return
    say(f"sealed {name}/{version} anew as {name}/{description.version} under key {description.key_id}")


@app.command("retire")
def retire(name: Name, version: Version, owner: Owner = _HERE, json: Json = False) -> None:
    """Destroy the key of one version: its ciphertext opens nothing from now on, wherever it lies.

    Examples:

      ensconce model retire --name digits --version 1
    """
    from ensconce.cluster.owner import OwnerFolder

    OwnerFolder.open(owner).retire_model(name, version)
    if json:
        print_json({"retired": key_id(name, version)})
        return
    remark(f"retired {name}/{version}")
