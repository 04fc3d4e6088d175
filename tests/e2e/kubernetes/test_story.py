"""The story on a real cluster, seen from the clients' side: what may not fail never does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onenode import adapter, changes
from onenode.cluster import Cluster
from onenode.gateway import Gateway
from onenode.host import GRPC, NAME, NAMESPACE, VENDOR, Host
from onenode.images import change_image, name_in
from onenode.load import Call, Load, Task, per_replica
from onenode.machine import ADDRESS, HOSTNAME, MachineError
from onenode.owner import DOMAIN, EXAMPLE, MODEL, Owner

PLAIN, COMFORTABLE = 3, 2
BUSY = 9
"""Plain callers without a pause: so many that a replica that ends has calls under way, however it ends."""

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Story:
    """Three parties: the owner, the host with his cluster, a client with files of his own."""

    owner: Owner
    host: Host
    archive: Path
    client: Path
    first: str = ""
    second: str = ""
    bundles: dict[str, Path] = field(default_factory=dict)
    told: list[tuple[str, list[Call]]] = field(default_factory=list)

    def accept(self, file: Path) -> None:
        """Give the client the policy by which he accepts replicas."""
        shutil.copy(file, self.client / "policy.yaml")

    @contextlib.contextmanager
    def load(self, plain: int = PLAIN, pause: float = 0.02) -> Iterator[Load]:
        """Clients that come and go, from now on; what became of their calls is told when the tests are over.

        Without a pause they would take both cores from the cluster that they are to watch.
        """
        task = Task(
            address=GRPC,
            server_name=DOMAIN,
            policy=str(self.client / "policy.yaml"),
            ca=str(self.client / "ca.pem"),
            pccs=VENDOR,
            model=MODEL,
            inputs=str(self.client / "images.npy"),
            plain=plain,
            comfortable=COMFORTABLE,
            pause=pause,
        )
        with Load(self.host.cluster.machine, self.client, task) as load:
            self.host.cluster.wait(lambda: load.calls or not load.running(), "the first answer")
            yield load
            self.told.append((os.environ["PYTEST_CURRENT_TEST"].split("::")[-1].split(" ")[0], load.calls))

    def keep_on(self, load: Load, enough: Callable[[list[Call]], object], what: str) -> list[Call]:
        """Let the clients go on until the calls from now on are enough; gives those."""
        now = time.time()
        self.host.cluster.wait(lambda: enough(load.since(now)) or not load.running(), what)
        return load.since(now)


@pytest.fixture(scope="module")
def story(cluster: Cluster, gateway: Gateway, report: list[str]) -> Iterator[Story]:
    """Everything up to the first rollout's begin."""
    archives = Path(os.environ.get("ENSCONCE_IMAGES", "build/images")).resolve()
    images = {}
    for target in ("server-simulated", "enclave-simulated"):
        archive = archives / f"{target}.tar"
        if not archive.is_file():
            pytest.skip(f"no {archive}: ARCHIVES={archives} deploy/images/build {target}")
        cluster.load_image(archive)
        images[target] = name_in(archive)
    owner = Owner(cluster.machine, images["enclave-simulated"], VENDOR)
    owner.init()
    host = Host(cluster, gateway, images["server-simulated"], owner.bundle)
    story = Story(owner, host, archives / "server-simulated.tar", cluster.machine.folder / "client")
    owner.seal(1)
    story.first = owner.build_enclave()
    host.serve_store()
    story.bundles["first"] = host.take("first")
    host.start_vendor(story.bundles["first"])
    owner.write_policy()
    owner.serve()
    story.client.mkdir()
    shutil.copy(owner.folder / "ca.pem", story.client)
    story.accept(owner.folder / "policy.yaml")
    with np.load(EXAMPLE / "heldout.npz", allow_pickle=False) as held_out:
        np.save(story.client / "images.npy", held_out["images"].astype(np.float32)[..., np.newaxis])
    yield story
    report += [_line(test, calls) for test, calls in story.told]
    pods = cluster.kubectl("describe", "pods", f"--namespace={NAMESPACE}")
    (cluster.machine.logs / "pods.log").write_text(pods)


def _line(test: str, calls: list[Call]) -> str:
    milliseconds = sorted(call.seconds * 1000 for call in calls)
    median, slowest = milliseconds[len(calls) // 2], milliseconds[-1]
    again, failed = len(lost(calls)), sum(call.failed for call in calls)
    return f"{test}: {len(calls)} calls, {again} asked again, {failed} failed; {median:.0f} ms, slowest {slowest:.0f}"


def test_two_replicas_become_ready_and_answer(story: Story) -> None:
    story.host.apply(story.bundles["first"], 2)
    with story.load() as load:
        calls = story.keep_on(load, lambda calls: len(calls) > 200 and len(per_replica(calls)) == 2, "both to answer")
        load.stop()
    assert {call.mr_enclave for call in calls} == {story.first}
    assert versions(calls) == {1}
    assert lost(calls) == []


def test_anybody_verifies_a_replica_through_the_gateway(story: Story) -> None:
    assert story.first in story.host.verify(GRPC, story.client)


def test_rest_has_a_route_of_its_own(story: Story) -> None:
    told = story.host.get(f"/v1/models/{MODEL}", ADDRESS, story.client / "ca.pem")
    assert [each["state"] for each in json.loads(told)["model_version_status"]] == ["AVAILABLE"]


def test_a_policy_says_whom_replicas_reach(story: Story) -> None:
    """As an object: the bridge of this cluster enforces none."""
    [policy] = story.host.cluster.get(
        "networkpolicy", f"--namespace={NAMESPACE}", f"--field-selector=metadata.name={NAME}"
    )
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in chosen.items())
    pods = story.host.cluster.get("pods", f"--namespace={NAMESPACE}", f"--selector={selector}")
    assert {pod["metadata"]["name"] for pod in pods} == names(story)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    [ingress] = policy["spec"]["ingress"]
    assert ingress["from"] == [{"ipBlock": {"cidr": f"{ADDRESS}/32"}}]
    assert {port["port"] for port in ingress["ports"]} == {8500, 8501}
    reached = {
        (peer.get("ipBlock", {}).get("cidr") or peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"], port)
        for rule in policy["spec"]["egress"]
        for peer in rule["to"]
        for port in [each["port"] for each in rule["ports"]]
    }
    assert reached == {(f"{ADDRESS}/32", 4433), (f"{ADDRESS}/32", 9000), ("simulated-vendor", 8081)}


def test_status_tells_what_each_replica_proves(story: Story) -> None:
    for options in ((), ("--direct",)):
        told = json.loads(story.host.status(story.client, "--json", *options))
        assert {each["pod"] for each in told} == names(story)
        for replica in told:
            assert replica["ready"]
            assert replica["node"] == HOSTNAME
            assert replica["measurement"] == replica["proved"]["measurement"] == story.first
            assert replica["proved"]["accepted"]
            assert replica["proved"]["requests"] > 0
    table = story.host.status(story.client)
    (story.host.cluster.machine.logs / "status.txt").write_text(table)
    assert table.count(story.first[:12]) == 2


def test_replicas_tell_how_long_requests_wait(story: Story) -> None:
    for pod in story.host.pods():
        # As the reference tells Prometheus to: by the pod's address, under the service's name.
        told = story.host.get("/metrics", pod["status"]["podIP"], story.client / "ca.pem")
        [count] = re.findall(r'^ensconce_serving_queue_seconds_count\{model="digits",version="1"\} (\d+)$', told, re.M)
        assert int(count) > 0


def test_a_third_replica_gets_its_share(story: Story) -> None:
    with story.load() as load:
        story.host.scale(3)
        calls = story.keep_on(load, lambda calls: len(calls) > 600, "600 calls to three")
        assert lost(load.stop()) == []
    shares = per_replica(calls)
    assert len(shares) == 3
    # Connections are dealt out, of 20 calls each: a fair share is a third, give or take chance.
    assert min(shares.values()) > len(calls) / 6, shares
    # What was scaled by hand no later apply of an older number takes back unnoticed.
    with pytest.raises(MachineError, match=r"conflict with \"kubectl\".*\n?.*spec.replicas"):
        story.host.begin(story.bundles["first"], 2)


def test_a_replica_crashes_under_load(story: Story) -> None:
    with story.load(BUSY, pause=0) as load:
        story.host.crash(story.host.pods()[0])
        story.host.cluster.wait(lambda: story.host.restarts() == 1, "kubelet to start it anew")
        story.host.routed(3)
        story.keep_on(load, lambda calls: len(per_replica(calls)) == 3, "three to answer again")
        calls = load.stop()
    only_what_was_under_way(calls)


def test_a_pod_is_killed_under_load(story: Story) -> None:
    with story.load(BUSY, pause=0) as load:
        victim = story.host.pods()[0]["metadata"]["name"]
        story.host.delete(victim)
        story.host.cluster.wait(lambda: victim not in names(story), "the pod to be gone")
        story.host.settle(3)
        story.keep_on(load, lambda calls: len(per_replica(calls)) == 3, "three to answer again")
        calls = load.stop()
    only_what_was_under_way(calls)


def test_a_new_version_of_the_model_under_load(story: Story) -> None:
    story.owner.seal(2)
    story.bundles["version 2"] = story.host.take("version-2")
    with story.load(BUSY, pause=0) as load:
        story.host.apply(story.bundles["version 2"], 3)
        after = story.keep_on(load, lambda calls: len(calls) > 100, "a hundred calls to the new version")
        calls = load.stop()
    assert versions(calls) == {1, 2}
    assert versions(after) == {2}
    assert lost(calls) == []


def test_a_new_measurement_with_an_overlap_then_the_old_one_is_revoked(story: Story) -> None:
    # Measured, like everything that the enclave is told. Requests wait 5 ms for others from now on: see the autoscaler.
    story.owner.change_deployment(serving={"batching": {"max_batch_size": 16, "batch_timeout_micros": 5000}})
    story.second = story.owner.build_enclave()
    assert story.second != story.first
    story.bundles["second"] = story.host.take("second")
    story.accept(story.owner.change_policy({"first": story.first, "second": story.second}))
    with story.load(BUSY, pause=0) as load:
        story.host.apply(story.bundles["second"], 3)
        after = story.keep_on(load, lambda calls: len(calls) > 100, "a hundred calls to the new enclave")
        assert {call.mr_enclave for call in after} == {story.second}
        # Only now does the policy no longer name the old one.
        story.owner.change_policy({"second": story.second})
        again = story.keep_on(load, lambda calls: len(calls) > 100, "a hundred more")
        calls = load.stop()
    assert {call.mr_enclave for call in again} == {story.second}
    assert {call.mr_enclave for call in calls} == {story.first, story.second}
    assert lost(calls) == []


def test_a_revoked_measurement_gets_no_key(story: Story) -> None:
    before = len(story.owner.log())
    with story.load() as load:
        story.host.begin(story.bundles["version 2"], 3)
        refused = "policy.mr_enclave"
        story.host.cluster.wait(lambda: refused in story.host.last_words(), "the old enclave to be refused", pause=1)
        assert story.host.ready() == 3
        log = story.owner.log()[before:]
        assert refused in {entry["fields"].get("check") for entry in log if entry["event"] == "key.refused"}
        assert [entry for entry in log if entry["event"] == "key.released"] == []
        story.host.apply(story.bundles["second"], 3)
        calls = load.stop()
    assert {call.mr_enclave for call in calls} == {story.second}
    assert lost(calls) == []


def test_a_tampered_image_gets_no_key(story: Story) -> None:
    image = tampered(story)
    sound = names(story)
    before = len(story.owner.log())
    with story.load() as load:
        story.host.begin_with(image, story.bundles["second"], 3)
        said = "launcher.trusted_file"
        story.host.cluster.wait(lambda: said in story.host.last_words(), "the tampered enclave to be stopped", pause=1)
        assert story.host.ready() == 3
        assert sound < names(story)
        assert [entry for entry in story.owner.log()[before:] if entry["event"] == "key.released"] == []
        calls = story.keep_on(load, lambda calls: len(calls) > 50, "fifty calls to what is sound")
        load.stop()
        story.host.apply(story.bundles["second"], 3)
    assert names(story) == sound
    assert lost(calls) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changes.configuration, "launcher.trusted_file"),
        (changes.other_machine, "policy.root"),
    ],
)
def test_whoever_owns_the_objects_gains_nothing(
    story: Story, change: Callable[[changes.Objects], changes.Objects], said: str
) -> None:
    before = len(story.owner.log())
    bundle, cluster = story.bundles["second"], story.host.cluster
    cluster.apply(change(story.host.render(bundle, replicas=3)))
    cluster.wait(lambda: said in story.host.last_words(), f"{said} to be told", pause=1)
    assert story.host.ready() == 3
    assert [entry for entry in story.owner.log()[before:] if entry["event"] == "key.released"] == []
    story.host.apply(bundle, 3)


def test_more_replicas_when_requests_wait(story: Story) -> None:
    # However quick this machine is, they wait longer than that: as long as the second enclave lets them.
    cluster, scaling = story.host.cluster, {"maxReplicas": 4, "queueMilliseconds": 1}
    pods = (
        "get",
        "pods",
        f"--namespace={NAMESPACE}",
        "--selector=app.kubernetes.io/component=replica",
        "--output=json",
    )
    adapter.start(
        cluster,
        adapter.Task(
            pods=cluster.command(*pods),
            authority=str(story.client / "ca.pem"),
            server_name=DOMAIN,
            port=8501,
            metric="ensconce_queue_seconds",
            certificate=str(cluster.files / "custom-metrics.crt"),
            key=str(cluster.files / "custom-metrics.key"),
            clients=str(cluster.files / "ca.crt"),
        ),
    )
    story.host.hand_over(3)
    with story.load() as load:
        story.host.begin(story.bundles["second"], 3, autoscaling=scaling)
        cluster.wait(lambda: story.host.ready() == 4, "the autoscaler to have started a fourth")
        story.host.settle(4)
        story.keep_on(load, lambda calls: len(per_replica(calls)) == 4, "four to answer")
        calls = load.stop()
    (cluster.machine.logs / "autoscaler.txt").write_text(cluster.kubectl("describe", "hpa", f"--namespace={NAMESPACE}"))
    assert lost(calls) == []


def names(story: Story) -> set[str]:
    """The names of the replicas' pods."""
    return {pod["metadata"]["name"] for pod in story.host.pods()}


def versions(calls: list[Call]) -> set[int]:
    """Those that have answered, of callers who were told."""
    return {call.version for call in calls} - {0}


def lost(calls: list[Call]) -> list[str]:
    """Every attempt that failed."""
    return [attempt for call in calls for attempt in call.lost]


def only_what_was_under_way(calls: list[Call]) -> None:
    """What one replica had begun is lost, at most a call of each plain caller, and is answered when asked again.

    Who has the comfortable client is told nothing of it.
    """
    assert [call for call in calls if call.failed] == []
    assert max(len(call.lost) for call in calls) <= 1
    assert len(lost(calls)) <= BUSY, lost(calls)


def tampered(story: Story) -> str:
    """The servers' image with a line more in the program that the enclave executes; gives its name."""
    manifest = (story.owner.bundle / "enclave" / "server.manifest.sgx").read_text()
    path = re.search(r'file:(enclave/image/[^"]*/ensconce/serving/__init__\.pyc)"', manifest)
    assert path
    name, changed = "localhost/ensconce/server-simulated:tampered", story.client.parent / "tampered.tar"
    change_image(story.archive, changed, name, {f"/opt/ensconce/{path[1]}": b"# Copies every request to its host.\n"})
    story.host.cluster.load_image(changed)
    return name
