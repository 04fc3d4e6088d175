"""``ensconce kubernetes``: the owner's bundle on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensconce.cli.output import print_json, print_table, remark
from ensconce.errors import InputError

if TYPE_CHECKING:
    from ensconce.cluster.kubernetes.status import Proved, Replica

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
        remark("the image is named by a tag, which may mean another one tomorrow")
    if read.platform == "simulated":
        remark("SIMULATED: nothing protects these replicas from the cluster")
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


@app.command("status")
def status(
    namespace: Annotated[str, typer.Option(help="Where the replicas are.")] = "ensconce",
    name: Annotated[str | None, typer.Option(help="Of the deployment; all of the namespace when not given.")] = None,
    policy: Annotated[Path | None, typer.Option(help="The measurements that you accept.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="The owner's authority, ca.pem.")] = None,
    pccs: Annotated[
        str | None, typer.Option("--pccs", envvar="ENSCONCE_PCCS", help="Where collateral comes from, or a bundle.")
    ] = None,
    pods: Annotated[
        str | None, typer.Option(metavar="FILE", help="What `kubectl get pods -o json` printed; - is standard input.")
    ] = None,
    direct: Annotated[
        bool, typer.Option("--direct", help="Connect to the pods' own addresses, not through kubectl.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say of each replica on which node it is, and verify it: measurement, verdict, certificate, requests.

    Asks the cluster with kubectl, as you. With --policy, --ca and --pccs, each ready replica proves itself over a
    connection of its own; without them, there is only the cluster's word. Exit status: 4 or 3 when a ready replica is
    refused, 5 when one is not reached.

    Examples:

    \b
      ensconce kubernetes status --name digits --policy policy.yaml --ca ca.pem \\
        --pccs https://pccs.example.test:8081
    """
    from ensconce.cluster.kubernetes import status as act

    found = act.read_pods(_pods(namespace, name, pods))
    given = [policy, ca, pccs]
    if any(each is not None for each in given) and policy is not None and ca is not None and pccs is not None:
        from ensconce.client.service import read_authority
        from ensconce.cluster.client import open_appraiser

        client = act.Client(open_appraiser(policy, pccs), read_authority(ca))
        proved = act.prove(found, client, act.directly if direct else act.through_kubectl)
    elif any(each is not None for each in given):
        raise InputError("usage", "--policy, --ca and --pccs belong together", remedy="give all three, or none")
    else:
        proved = [None] * len(found)
    if json:
        print_json(
            [
                {**vars(replica), "proved": None if proof is None else proof.to_json_object()}
                for replica, proof in zip(found, proved, strict=True)
            ]
        )
    else:
        _print_table(found, proved)
    errors = [proof.error for proof in proved if proof is not None and proof.error is not None]
    if errors:
        raise typer.Exit(max(error.exit_status for error in errors))


def _pods(namespace: str, name: str | None, pods: str | None) -> list[dict[str, Any]]:
    from ensconce.cluster.kubernetes import kubectl
    from ensconce.files import read_bounded

    if pods == "-":
        return kubectl.parse_pods(sys.stdin.buffer.read(kubectl.MAX_PODS + 1))
    if pods is not None:
        return kubectl.parse_pods(read_bounded(Path(pods), kubectl.MAX_PODS))
    labels = ["app.kubernetes.io/name=ensconce", "app.kubernetes.io/component=replica"]
    labels += [] if name is None else [f"app.kubernetes.io/instance={name}"]
    return kubectl.get_pods(namespace, ",".join(labels))


def _print_table(found: list[Replica], proved: list[Proved | None]) -> None:
    rows = []
    for replica, proof in zip(found, proved, strict=True):
        state = "ready" if replica.ready else replica.phase
        meant = (replica.measurement or "")[:12]
        if proof is None:
            judged = [meant, "not asked", "", ""]
        elif proof.error is not None:
            judged = [meant, proof.error.check, "", ""]
        else:
            verdict = f"{proof.status} ({(proof.root or '').partition(':')[0]})"
            requests = "" if proof.requests is None else str(proof.requests)
            judged = [(proof.measurement or "")[:12], verdict, proof.not_after or "", requests]
        rows.append([replica.pod, replica.node or "", state, str(replica.restarts), *judged])
    print_table(["pod", "node", "state", "restarts", "mr_enclave", "verdict", "until", "requests"], rows)


def _chosen(
    name: str | None, namespace: str | None, image: str | None, models: str | None, host: list[str] | None, vendor: bool
) -> dict[str, Any]:
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
