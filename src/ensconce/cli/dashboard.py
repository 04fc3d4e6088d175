"""``ensconce dashboard``: a page about a deployment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ensconce.cli.output import say

if TYPE_CHECKING:
    from ensconce.client.service import Service
    from ensconce.dashboard.replicas import Find

__all__ = ["addresses_of", "dashboard", "running_in"]

_MAX_PEM = 1 << 16
_METRICS = "/monitoring/prometheus/metrics"
_NOWHERE = ["127.0.0.1:1"]


def dashboard(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[HOST:PORT]...", help="Where replicas' REST is reached; a name, at all its addresses."),
    ] = None,
    host: Annotated[
        Path | None, typer.Option("--host", help="The host's folder: the replicas that `ensconce up` runs there.")
    ] = None,
    owner: Annotated[
        Path | None,
        typer.Option("--owner", help="The owner's folder: her log's entries, and what options below do not say."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="The measurements that are accepted; the owner's when not given.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="The owner's authority, ca.pem; from her folder when not given.")
    ] = None,
    server_name: Annotated[str | None, typer.Option("--server-name", help="The service's TLS name.")] = None,
    pccs: Annotated[
        str | None,
        typer.Option(
            "--pccs",
            envvar="ENSCONCE_PCCS",
            help="Where collateral comes from: URL of a PCCS or Intel's PCS, or a bundle.",
        ),
    ] = None,
    provisioning: Annotated[
        list[str] | None,
        typer.Option(
            "--provisioning", metavar="URL", help="Status address of a provisioning server, http://HOST:PORT."
        ),
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="The owner's public key, owner.pub, for the log's heads.")
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="The log's last good head, as `audit witness` keeps it; forgotten when not given."),
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="Where the page is; port 0 for a free one.")
    ] = "127.0.0.1:0",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="A secret of 32 characters or more, to be typed in by whoever looks."),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Speak TLS with this certificate, PEM, leaf first.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM.")] = None,
) -> None:
    """Serve a page about replicas, keys, requests, models and the audit log, and print where it is.

    The address that is printed works once; the browser that opens it gets a cookie. Nothing can be changed from the
    page. Replicas are verified as by any client, each at every look. Beyond loopback addresses it speaks TLS only.

    Examples:

    \b
      ensconce dashboard --owner owner --host host

    \b
      ensconce dashboard digits.example.test:8501 --policy policy.yaml --ca ca.pem \\
        --provisioning http://provisioning.example.test:9433 --public-key owner.pub --keep head.json
    """
    from ensconce.addresses import Address
    from ensconce.audit.public import load_public_key, read_head
    from ensconce.audit.remote import RemoteLog
    from ensconce.client.service import Service
    from ensconce.cluster.deployment import Deployment
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.cluster.state import open_state
    from ensconce.dashboard.auth import load_token, names_in
    from ensconce.dashboard.logs import Entries, Heads
    from ensconce.dashboard.program import Dashboard, run_dashboard
    from ensconce.dashboard.watcher import Replicas, Sources
    from ensconce.errors import InputError
    from ensconce.files import read_bounded
    from ensconce.serving.tls import ServingCertificate

    if (tls_cert is None) != (tls_key is None):
        raise InputError("usage", "--tls-cert and --tls-key belong together", remedy="give both or neither")
    if targets and host is not None:
        raise InputError("usage", "addresses and --host are two ways to name replicas", remedy="choose one")
    if not (targets or host or owner or provisioning):
        raise InputError(
            "usage", "there is nothing to look at", remedy="give addresses, --host, --owner, --provisioning"
        )
    owned = OwnerFolder.open(owner) if owner is not None else None
    if owned is not None:
        policy, ca, public_key = policy or owned.policy_file, ca or owned.ca_file, public_key or owned.public_key_file
    metrics_path = None
    if (folder := owner or host) is not None:
        deployment = Deployment.load(folder / "ensconce.yaml")
        server_name = server_name or deployment.service.domain
        pccs = pccs or deployment.platform.collateral_from(folder)[0]
        metrics_path = deployment.serving.metrics_path if deployment.serving is not None else None
        if not provisioning and (status := deployment.provisioning.status) is not None:
            provisioning = [f"http://{status}"]
    replicas = None
    if targets or host is not None:
        if policy is None or ca is None:
            raise InputError("usage", "replicas have to be judged", remedy="give --policy and --ca, or --owner")
        # What `ensconce up` runs is asked for at each look; a service has to have an address.
        service = Service.open(targets or _NOWHERE, policy, authority=ca, collateral=pccs, server_name=server_name)
        find = running_in(host) if host is not None else addresses_of(service)
        replicas = Replicas(find, service, metrics_path or _METRICS)
        server_name = service.server_name
    certificate, names = None, frozenset[str]()
    if tls_cert is not None and tls_key is not None:
        pem = read_bounded(tls_cert, _MAX_PEM)
        certificate, names = ServingCertificate(read_bounded(tls_key, _MAX_PEM), pem), names_in(pem)
    servers = [each.rstrip("/") for each in provisioning or ()]
    key = load_public_key(public_key) if public_key is not None else None
    with tempfile.TemporaryDirectory(prefix="ensconce-dashboard-") as scratch:
        remote = [RemoteLog(each, timeout=5.0) for each in servers]
        outside = key is not None and bool(remote)
        known = read_head(keep, key) if keep is not None and key is not None and keep.exists() else None
        if keep is not None and not (outside or (owned is not None and key is not None)):
            raise InputError("usage", "there is no log to keep the head of", remedy="give --public-key, or --owner")
        heads = Heads(remote, keep or Path(scratch) / "head.json", key) if outside and key is not None else None
        entries = None
        if owned is not None and key is not None:
            entries = Entries(open_state(owned).log, key, known, None if outside else keep)
        wanted = Dashboard(
            name=server_name or "Ensconce",
            sources=Sources(
                replicas=replicas,
                servers=servers,
                heads=heads,
                entries=entries,
            ),
            listen=Address.parse(listen, lowest_port=0),
            token=load_token(token_file) if token_file is not None else None,
            certificate=certificate,
            names=names,
        )
        if run_dashboard(wanted, say):
            raise KeyboardInterrupt


def addresses_of(service: Service) -> Find:
    """Finds replicas at all addresses that the service's names have now, anew at each look."""
    from ensconce.dashboard.replicas import Place

    return lambda: [Place(str(address), address) for address in service.addresses()]


def running_in(host: Path) -> Find:
    """Finds replicas where the host's supervisor says that they are: its word, which may be anything."""
    from ensconce.addresses import Address
    from ensconce.cluster.host import status
    from ensconce.dashboard.replicas import Place
    from ensconce.errors import UnreachableError

    def place(replica: dict[str, Any]) -> Place:
        port, error = replica["rest_port"], replica["error"]
        state = f"{replica['state']}: {error['problem']} [{error['check']}]" if error else str(replica["state"])
        return Place(str(replica["name"]), Address("127.0.0.1", int(port)) if port else None, state)

    def find() -> list[Place]:
        answer = status(host)
        try:
            return [place(each) for each in answer["replicas"]]
        except (KeyError, TypeError, ValueError):
            raise UnreachableError("dashboard.host", f"what runs in {host} answers something else") from None

    return find
