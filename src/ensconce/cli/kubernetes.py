"""``ensconce kubernetes``: the owner's bundle on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ensconce.cli.output import notices

__all__ = ["app"]

app = typer.Typer(help="The host's side on Kubernetes: objects, values for Helm, status.", no_args_is_help=True)

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A copy of the owner's bundle.")]
File = Annotated[Path | None, typer.Option("--values", help="A YAML file with values of the host's.")]
Name = Annotated[str | None, typer.Option(help="Of the objects; the domain's first label when not given.")]
Namespace = Annotated[str | None, typer.Option(help="Where they are; ensconce when not given.")]
Image = Annotated[str | None, typer.Option(help="The server's image, best by digest.")]
Models = Annotated[str | None, typer.Option(metavar="URL", help="Where the bundle's models/ lies, for the pods.")]
Host = Annotated[
    list[str] | None, typer.Option(metavar="NAME=IP", help="An address that no DNS tells; may be given several times.")
]
Vendor = Annotated[bool, typer.Option("--simulated-vendor", help="Run the simulated vendor as well.")]


@app.command("render")
def render(
    bundle: Bundle,
    values: File = None,
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    models: Models = None,
    host: Host = None,
    simulated_vendor: Vendor = False,
) -> None:
    """Print the Kubernetes objects for BUNDLE as YAML: the same from the same input, and no secret among them.

    Examples:

    \b
      ensconce kubernetes render bundle --image registry.example.test/ensconce@sha256:... \\
        --models https://models.example.test/digits --host provisioning.example.test=192.0.2.7 \\
        | kubectl apply --server-side -f -
    """
    from ensconce.cluster.kubernetes.bundle import read_values
    from ensconce.cluster.kubernetes.objects import render as objects_of
    from ensconce.cluster.kubernetes.objects import to_yaml

    chosen = _chosen(name, namespace, image, models, host, simulated_vendor)
    read = read_values(bundle, values, chosen)
    if "@sha256:" not in read.image:
        notices.print("the image is named by a tag, which may mean another one tomorrow", markup=False)
    if read.platform == "simulated":
        notices.print("SIMULATED: nothing protects these replicas from the cluster", markup=False)
    typer.echo(to_yaml(objects_of(read)), nl=False)


@app.command("values")
def values(
    bundle: Bundle,
    values: File = None,
    name: Name = None,
    namespace: Namespace = None,
    image: Image = None,
    models: Models = None,
    host: Host = None,
    simulated_vendor: Vendor = False,
) -> None:
    """Print the values from which the Helm chart makes the same objects as `ensconce kubernetes render`.

    Examples:

    \b
      ensconce kubernetes values bundle --values host.yaml > values.yaml
      helm template digits deploy/helm/ensconce --values values.yaml
    """
    import yaml

    from ensconce.cluster.kubernetes.bundle import read_values

    read = read_values(bundle, values, _chosen(name, namespace, image, models, host, simulated_vendor))
    fields = read.model_dump(by_alias=True, exclude_none=True)
    typer.echo(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000), nl=False)


def _chosen(
    name: str | None, namespace: str | None, image: str | None, models: str | None, host: list[str] | None, vendor: bool
) -> dict[str, Any]:
    from ensconce.errors import InputError

    chosen: dict[str, Any] = {
        key: value for key, value in (("name", name), ("namespace", namespace), ("image", image)) if value is not None
    }
    if models is not None:
        chosen["models"] = {"url": models}
    if vendor:
        chosen["vendor"] = {"serve": True}
    for text in host or ():
        left, equals, right = text.partition("=")
        if not (left and equals and right):
            raise InputError("kubernetes.host", "this is no name with its address", found=text[:200], rule="NAME=IP")
        chosen.setdefault("hosts", {})[left] = right
    return chosen
