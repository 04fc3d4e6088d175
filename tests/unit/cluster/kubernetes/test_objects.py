"""What every object must be, whatever the values, and what follows from each of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ensconce.cli.main import app
from ensconce.cluster.kubernetes.bundle import read_values
from ensconce.cluster.kubernetes.objects import render, to_yaml
from ensconce.cluster.kubernetes.values import Values
from ensconce.enclave.config import ListenConfig
from ensconce.enclave.tensorflow_serving import CONNECTION_AGE_S
from ensconce.errors import InputError

Read = Callable[..., Values]
Objects = Callable[[Values], dict[tuple[str, str], dict[str, Any]]]


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every field of an object, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def pods(values: Values) -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in render(values) if each["kind"] == "Deployment"]


def replica(values: Values) -> dict[str, Any]:
    return next(container for pod in pods(values) for container in pod["containers"] if container["name"] == "replica")


@pytest.fixture(
    params=[
        *("simulated", "simulated with its vendor", "gramine", "azure", "alibaba", "ingress", "claim", "scaled"),
        *("tensorflow serving", "tensorflow serving at an ingress"),
    ]
)
def any_values(request: pytest.FixtureRequest, values: Read, gramine: Read, googles: Read) -> Values:
    match request.param:
        case "tensorflow serving":
            return googles()
        case "tensorflow serving at an ingress":
            return googles(route={"kind": "ingress"}, models={"claim": "digits-models"})
        case "alibaba":
            return gramine(plugin="alibaba")
        case "simulated with its vendor":
            return values(vendor={"serve": True, "address": "10.96.0.77"})
        case "gramine":
            return gramine()
        case "azure":
            return gramine(plugin="azure")
        case "ingress":
            return values(route={"kind": "ingress"})
        case "claim":
            return values(models={"claim": "digits-models"})
        case "scaled":
            return values(autoscaling={"maxReplicas": 8}, spare=1)
    return values()


def test_every_object_fits_kubernetes_own_schemas(any_values: Values) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for each in render(any_values):
        if not each["apiVersion"].startswith("gateway.networking.k8s.io/"):
            kubernetes_validate.validate(each, "1.35", strict=True)


def test_no_secret_no_host_no_privilege(any_values: Values) -> None:
    assert "Secret" not in {each["kind"] for each in render(any_values)}
    for key, value in walk(render(any_values)):
        assert key not in ("secret", "secretName", "secretKeyRef", "secretRef", "hostPath", "hostNetwork", "hostPID")
        assert key not in ("privileged", "procMount", "hostPort", "nodePort"), key
        assert (key, value) not in (("automountServiceAccountToken", True), ("type", "NodePort"))


def test_every_container_fits_the_restricted_standard(any_values: Values) -> None:
    for pod in pods(any_values):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"memory"}
            assert not {"command", "env", "envFrom"} & set(container)
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            *("configMap", "emptyDir", "persistentVolumeClaim"),
        }
    (namespace,) = [each for each in render(any_values) if each["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_same_values_give_the_same_text_and_labels(any_values: Values) -> None:
    text = to_yaml(render(any_values))
    assert text == to_yaml(render(any_values))
    assert list(yaml.safe_load_all(text)) == render(any_values)
    for each in render(any_values):
        if each["kind"] == "Namespace":
            continue
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "ensconce"
        assert labels["app.kubernetes.io/instance"] == any_values.name
        assert labels["ensconce/platform"] == any_values.platform
        assert each["metadata"]["namespace"] == any_values.namespace


def test_the_enclaves_files_are_in_an_object_of_their_own(values: Read, objects: Objects) -> None:
    read = values()
    made = objects(read)
    ((_, name), config_map) = next(item for item in made.items() if item[0][0] == "ConfigMap")
    assert config_map["immutable"] is True
    assert json.loads(config_map["data"]["server.json"])["domain"] == "digits.example.test"
    assert len(base64.b64decode(config_map["binaryData"]["server.sig"])) == 1808
    deployment = made["Deployment", "digits"]
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == name
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["ensconce/mr-enclave"] == read.enclave.measurement
    # Another enclave is another object: while both run, each has its own.
    files = read.enclave.model_copy(update={"files": {**read.enclave.files, "server.json": "{}"}})
    assert ("ConfigMap", name) not in objects(read.model_copy(update={"enclave": files}))


def test_every_small_file_of_the_enclave_is_mounted_where_it_is_in_the_bundle(
    values: Read, gramine: Read, googles: Read, objects: Objects
) -> None:
    signed = {"server.manifest.sgx", "server.sig"}
    for read, others in (
        (values(), {"server.json"}),
        (gramine(), {"server.json", "hosts"}),
        (googles(), {"ca.pem", "hosts", "models.config", "resolv.conf", "ssl.cfg"}),
    ):
        (config_map,) = [each for (kind, _), each in objects(read).items() if kind == "ConfigMap"]
        assert {*config_map["data"], *config_map["binaryData"]} == {*signed, *others, "owner.pub"}
        mounts = {each["mountPath"]: each for each in replica(read)["volumeMounts"] if each["name"] == "enclave"}
        assert set(mounts) == {f"/opt/ensconce/enclave/{name}" for name in signed | others}
        for path, mount in mounts.items():
            assert (mount["subPath"], mount["readOnly"]) == (path.rpartition("/")[2], True)


def test_a_replica_starts_is_probed_and_drained(values: Read) -> None:
    read = values(probes={"startSeconds": 61, "drainSeconds": 12})
    container = replica(read)
    assert container["args"][:5] == ["replica", "run", "/opt/ensconce", "--platform", "simulated"]
    assert container["args"][-2:] == ["--vendor", "http://digits-simulated-vendor:8081"]
    assert container["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 61
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 12}}}
    # The preStop hook, then what `replica run` gives requests that are under way.
    assert pods(read)[0]["terminationGracePeriodSeconds"] >= 12 + 20 + 5


def test_models_come_as_ciphertext_before_the_replica(values: Read) -> None:
    (fetching,) = pods(values())[0]["initContainers"]
    assert fetching["args"] == [
        *("model", "pull", "https://models.example.test/digits", "/opt/ensconce/models"),
        *("--owner-key", "/etc/ensconce/owner.pub", "--model", "digits/3"),
    ]
    # Some stores need a package that the server's image does not have.
    bucket = {"url": "s3://models-of-digits/owner", "image": "registry.example.test/ensconce-s3:1"}
    read = values(models=bucket)
    assert pods(read)[0]["initContainers"][0]["image"] == bucket["image"]
    assert replica(read)["image"] == read.image == fetching["image"]
    claimed = pods(values(models={"claim": "digits-models"}))[0]
    assert "initContainers" not in claimed
    assert claimed["volumes"][1]["persistentVolumeClaim"] == {"claimName": "digits-models", "readOnly": True}


def test_an_update_never_drops_below_capacity(values: Read, objects: Objects) -> None:
    made = objects(values(spare=2))
    spec = made["Deployment", "digits"]["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0}}
    assert spec["replicas"] == 4
    assert made["PodDisruptionBudget", "digits"]["spec"]["maxUnavailable"] == 2
    assert objects(values())["PodDisruptionBudget", "digits"]["spec"]["maxUnavailable"] == "10%"
    keys = [each["topologyKey"] for each in spec["template"]["spec"]["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


def test_as_many_replicas_as_a_namespace_bears(values: Read, objects: Objects) -> None:
    many = objects(values(replicas=2900, spare=100))["Deployment", "digits"]["spec"]
    assert many["replicas"] == 3000
    # Nothing else of it depends on how many there are.
    few = objects(values(replicas=1, spare=100))["Deployment", "digits"]["spec"]
    assert {**few, "replicas": 3000} == many
    scaled = objects(values(replicas=2900, spare=100, autoscaling={"maxReplicas": 3000}))
    assert scaled["HorizontalPodAutoscaler", "digits"]["spec"]["minReplicas"] == 3000
    for fields in ({"replicas": 2901, "spare": 100}, {"replicas": 3001}, {"autoscaling": {"maxReplicas": 3001}}):
        with pytest.raises(InputError, match="3000"):
            values(**fields)


def test_scaling_by_queue_time_leaves_the_number_to_the_autoscaler(values: Read, objects: Objects) -> None:
    made = objects(values(autoscaling={"maxReplicas": 8, "queueMilliseconds": 15}, spare=1))
    assert "replicas" not in made["Deployment", "digits"]["spec"]
    spec = made["HorizontalPodAutoscaler", "digits"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 8)
    (metric,) = spec["metrics"]
    assert metric["pods"]["metric"]["name"] == "ensconce_queue_seconds"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "15m"}
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= 300
    with pytest.raises(InputError, match=r"kubernetes\.autoscaling"):
        values({"serving": None}, autoscaling={"maxReplicas": 8})
    with pytest.raises(InputError, match="maxReplicas is below"):
        values(autoscaling={"maxReplicas": 1})


def egress(made: dict[tuple[str, str], dict[str, Any]]) -> list[Any]:
    rules = made["NetworkPolicy", "digits"]["spec"]["egress"]
    return [(rule["to"][0].get("ipBlock", {}).get("cidr"), rule["ports"][0]["port"]) for rule in rules]


def test_a_replica_reaches_the_provisioning_server_and_nothing_else(values: Read, objects: Objects) -> None:
    alone = values(models={"claim": "digits-models"}, vendor={"url": "http://192.0.2.9:8081"})
    assert egress(objects(alone)) == [("192.0.2.7/32", 4433), ("192.0.2.9/32", 8081)]
    # What the init container fetches from, and names that DNS has to tell, are there only when they are asked for.
    assert egress(objects(values())) == [("192.0.2.7/32", 4433), ("192.0.2.128/25", 443), (None, 53)]
    assert objects(alone)["NetworkPolicy", "digits"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_names_without_dns(values: Read, objects: Objects) -> None:
    hosts = {"provisioning.example.test": "192.0.2.7", "models.example.test": "192.0.2.200"}
    read = values(
        hosts=hosts,
        models={"url": "http://models.example.test:9000/digits"},
        vendor={"serve": True, "address": "10.96.0.77"},
    )
    made = objects(read)
    assert egress(made) == [("192.0.2.7/32", 4433), (None, 8081), ("192.0.2.200/32", 9000)]
    assert made["Service", "digits-simulated-vendor"]["spec"]["clusterIP"] == "10.96.0.77"
    aliases = made["Deployment", "digits"]["spec"]["template"]["spec"]["hostAliases"]
    assert {each["ip"]: each["hostnames"] for each in aliases} == {
        "10.96.0.77": ["digits-simulated-vendor"],
        "192.0.2.200": ["models.example.test"],
        "192.0.2.7": ["provisioning.example.test"],
    }
    with pytest.raises(InputError, match="hosts has no address for provisioning"):
        values(hosts={})


def test_only_the_gateway_connects(values: Read, objects: Objects) -> None:
    (rule,) = objects(values())["NetworkPolicy", "digits"]["spec"]["ingress"]
    label = {"gateway.networking.k8s.io/gateway-name": "digits"}
    assert rule["from"] == [{"podSelector": {"matchLabels": label}}]
    assert [port["port"] for port in rule["ports"]] == [8500, 8501]
    given = values(ingressFrom=[{"cidr": "10.89.0.0/24"}], metricsFrom=[{"namespace": "monitoring"}])
    rules = objects(given)["NetworkPolicy", "digits"]["spec"]["ingress"]
    assert rules[0]["from"] == [{"ipBlock": {"cidr": "10.89.0.0/24"}}]
    assert [port["port"] for port in rules[1]["ports"]] == [8501]
    (other,) = objects(values(route={"gateway": {"name": "edge", "namespace": "gateways"}}))["NetworkPolicy", "digits"][
        "spec"
    ]["ingress"]
    assert other["from"][0]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "gateways"}


def test_connections_are_passed_through(values: Read, objects: Objects) -> None:
    made = objects(values())
    gateway = made["Gateway", "digits"]["spec"]
    assert [(each["port"], each["tls"], each["hostname"]) for each in gateway["listeners"]] == [
        (443, {"mode": "Passthrough"}, "digits.example.test"),
        (8443, {"mode": "Passthrough"}, "digits.example.test"),
    ]
    route = made["TLSRoute", "digits-rest"]
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [{"name": "digits", "sectionName": "rest"}]
    assert route["spec"]["rules"] == [{"backendRefs": [{"name": "digits", "port": 8501}]}]
    shared = objects(values(route={"gateway": {"name": "edge", "namespace": "gateways"}}))
    assert ("Gateway", "digits") not in shared
    assert shared["TLSRoute", "digits-grpc"]["spec"]["parentRefs"][0]["namespace"] == "gateways"
    ingress = objects(values(route={"kind": "ingress"}))["Ingress", "digits"]
    assert ingress["metadata"]["annotations"] == {"nginx.ingress.kubernetes.io/ssl-passthrough": "true"}
    assert not {kind for kind, _ in objects(values(route={"kind": "none"}))} & {"Gateway", "TLSRoute", "Ingress"}


@pytest.mark.parametrize(
    ("plugin", "devices"),
    [
        ("intel", {"sgx.intel.com/enclave": 1, "sgx.intel.com/epc": "2048Mi", "sgx.intel.com/provision": 1}),
        ("azure", {"kubernetes.azure.com/sgx_epc_mem_in_MiB": 2048}),
        ("alibaba", {"alibabacloud.com/sgx_epc_MiB": 2048}),
    ],
)
def test_enclave_memory_is_a_resource(gramine: Read, plugin: str, devices: dict[str, Any]) -> None:
    read = gramine(plugin=plugin)
    resources = replica(read)["resources"]
    assert devices.items() <= resources["limits"].items()
    assert devices.items() <= resources["requests"].items()
    taints = [taint["key"] for taint in pods(read)[0].get("tolerations", [])]
    assert taints == ([] if plugin == "intel" else [next(iter(devices))])


def test_quotes_come_from_a_neighbour_in_the_pod(gramine: Read, objects: Objects) -> None:
    read = gramine(group=117, pccs=[{"cidr": "192.0.2.8/32", "port": 8081}])
    (pod,) = pods(read)
    aesmd = pod["initContainers"][-1]
    assert (aesmd["name"], aesmd["restartPolicy"]) == ("aesmd", "Always")
    assert {"name": "aesmd", "mountPath": "/var/run/aesmd"} in aesmd["volumeMounts"]
    assert {"name": "aesmd", "mountPath": "/var/run/aesmd"} in replica(read)["volumeMounts"]
    assert pod["securityContext"]["supplementalGroups"] == [117]
    assert ("192.0.2.8/32", 8081) in egress(objects(read))
    assert "--vendor" not in replica(read)["args"]


def test_simulated_replicas_take_no_device(values: Read, objects: Objects) -> None:
    assert set(replica(values())["resources"]["limits"]) == {"memory"}
    vendor = objects(values(vendor={"serve": True}))["Deployment", "digits-simulated-vendor"]
    assert vendor["spec"]["template"]["metadata"]["labels"]["ensconce/platform"] == "simulated"
    assert vendor["spec"]["strategy"] == {"type": "Recreate"}


def test_what_the_owner_says_no_host_changes(values: Read) -> None:
    for name in ("domain", "enclave", "engine", "metricsPath", "platform", "provisioning"):
        with pytest.raises(InputError, match=f"{name} is the owner's to say"):
            values(**{name: {}})
    with pytest.raises(InputError, match=r"ports\.grpc is the owner's to say"):
        values(ports={"grpc": 1})
    assert values(ports={"health": 9000}).ports.health == 9000


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ({"image": "UPPER CASE"}, "image"),
        ({"unknown": 1}, "unknown"),
        ({"models": {"url": "https://user:secret@models.example.test/"}}, "url"),
        ({"models": {}}, "either url or claim"),
        ({"models": {"claim": "a", "image": "b"}}, "image is for a url"),
        ({"name": "-digits"}, "name"),
        ({"ingressFrom": [{}]}, "either cidr"),
        ({"vendor": None}, "vendor"),
        ({"sgx": {"epcMebibytes": 64, "quoteProvider": "a"}}, "sgx is for platform gramine"),
    ],
)
def test_values_that_are_refused(values: Read, host: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        values(**host)


def test_what_is_missing_is_named_with_where_to_say_it(bundle: Callable[..., Path]) -> None:
    with pytest.raises(InputError) as missing:
        read_values(bundle(), None, {})
    assert missing.value.problem.startswith("the values, field image: required field is missing")
    assert missing.value.remedy == (
        "add 'image'; in the host's file (--values), or by an option (--image, --models, --host)"
    )


def test_an_enclave_that_nobody_finds_in_a_pod(bundle: Callable[..., Path]) -> None:
    for listen in (ListenConfig(), ListenConfig(grpc="127.0.0.1:8500", rest="127.0.0.1:8501")):
        with pytest.raises(InputError, match=r"kubernetes\.listen"):
            read_values(bundle(listen=listen), None, {})


def test_an_enclave_that_finds_nobody_from_a_pod(bundle: Callable[..., Path], values: Callable[..., Values]) -> None:
    here = {"listen": "127.0.0.1:4433", "server_name": "provisioning.digits.example.test"}
    for servers in (["127.0.0.1:4433"], ["localhost:4433", "[::1]:4433"]):
        with pytest.raises(InputError, match=r"kubernetes\.provisioning"):
            read_values(bundle(provisioning={**here, "servers": servers}), None, {})
    both = ["127.0.0.1:4433", "provisioning.example.test:4433"]
    assert values({"provisioning": {**here, "servers": both}}).provisioning.servers == both


def test_googles_program_has_grpc_alone(googles: Read, objects: Objects) -> None:
    read = googles()
    made = objects(read)
    assert [port["name"] for port in replica(read)["ports"]] == ["grpc", "health"]
    assert [port["name"] for port in made["Service", "digits"]["spec"]["ports"]] == ["grpc"]
    assert [each["name"] for each in made["Gateway", "digits"]["spec"]["listeners"]] == ["grpc"]
    assert {name for kind, name in made if kind == "TLSRoute"} == {"digits-grpc"}
    (rule,) = made["NetworkPolicy", "digits"]["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == [8500]


def test_googles_program_runs_in_an_enclave_like_ours(googles: Read, gramine: Read) -> None:
    read = googles()
    container = replica(read)
    assert container["args"][:5] == ["replica", "run", "/opt/ensconce", "--platform", "gramine"]
    assert container["resources"]["limits"]["sgx.intel.com/epc"] == "2048Mi"
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    (pod,) = pods(read)
    # The whole model as ciphertext; the TLS key is ciphertext, too, and public with the enclave's other files.
    assert pod["initContainers"][0]["args"][-2:] == ["--model", "digits/3"]
    assert base64.b64decode(read.enclave.binary_files["ssl.cfg"]) == bytes(range(256))
    # Gramine opens it for writing, even to read it.
    models = {"name": "models", "mountPath": "/opt/ensconce/models"}
    assert models in container["volumeMounts"]
    assert {**models, "readOnly": True} in replica(gramine())["volumeMounts"]
    claimed = pods(googles(models={"claim": "digits-models"}))[0]["volumes"][1]
    assert claimed["persistentVolumeClaim"] == {"claimName": "digits-models", "readOnly": False}
    # It dies of SIGTERM where it stands: by then every connection has grown too old, and was told to go.
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] > CONNECTION_AGE_S
    assert replica(googles(probes={"drainSeconds": 90}))["lifecycle"] == {"preStop": {"sleep": {"seconds": 90}}}


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ({"autoscaling": {"maxReplicas": 8}}, r"kubernetes\.autoscaling.*TensorFlow Serving tells its own on REST"),
        ({"metricsFrom": [{"namespace": "monitoring"}]}, "metricsFrom is for replicas with REST"),
        ({"route": {"restPort": 8443}}, "restPort is for replicas with REST"),
        ({"sgx": None}, "sgx is for platform gramine"),
        ({"vendor": {"serve": True}}, "vendor is for platform simulated"),
    ],
)
def test_what_googles_program_cannot_have(googles: Read, host: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        googles(**host)


def test_googles_program_needs_sgx_and_its_own_enclave(googles_bundle: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"engine tensorflow-serving needs platform\.kind gramine"):
        googles_bundle(platform={"kind": "simulated", "pccs": "127.0.0.1:8081"})
    # The deployment says one engine, and the enclave that was built before has the other.
    built = googles_bundle()
    manifest = built / "enclave" / "server.manifest.sgx"
    manifest.write_text(manifest.read_text().replace("--port=", "--another="))
    with pytest.raises(InputError, match=r"enclave\.engine"):
        read_values(built, None, {})


def test_names_are_asked_for_where_the_enclave_asks(gramine: Read, objects: Objects) -> None:
    assert (None, 53) not in egress(objects(gramine(models={"claim": "digits-models"})))
    asking = gramine(["192.0.2.53"], models={"claim": "digits-models"})
    assert egress(objects(asking)) == [("192.0.2.7/32", 4433), ("192.0.2.53/32", 53), (None, 53)]


def test_the_commands(bundle: Callable[..., Path], host_file: Path) -> None:
    arguments = [str(bundle()), "--values", str(host_file), "--name", "numbers"]
    done = CliRunner().invoke(app, ["kubernetes", "render", *arguments])
    assert done.exit_code == 0, done.output
    assert "SIMULATED" in done.stderr
    assert {each["metadata"]["namespace"] for each in yaml.safe_load_all(done.stdout) if each["kind"] == "Service"} == {
        "ensconce"
    }
    shown = CliRunner().invoke(app, ["kubernetes", "values", *arguments])
    assert yaml.safe_load(shown.stdout)["enclave"]["measurement"] in done.stdout
    refused = CliRunner().invoke(app, ["kubernetes", "render", *arguments, "--host", "nothing"])
    assert isinstance(refused.exception, InputError)
