"""The story on a real cluster, seen from the clients' side: what may not fail never does."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from onenode.cluster import Cluster
from onenode.gateway import Gateway
from onenode.host import GRPC, NAMESPACE, VENDOR, Host
from onenode.images import change_image, name_in
from onenode.load import Call, Load, Task, per_replica
from onenode.owner import DOMAIN, EXAMPLE, MODEL, Owner

CALLERS = 4

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

    def accept(self, file: Path) -> None:
        """Give the client the policy by which he accepts replicas."""
        shutil.copy(file, self.client / "policy.yaml")

    def load(self) -> Load:
        """Clients that come and go, from now on."""
        task = Task(
            address=GRPC,
            server_name=DOMAIN,
            policy=str(self.client / "policy.yaml"),
            ca=str(self.client / "ca.pem"),
            pccs=VENDOR,
            model=MODEL,
            inputs=str(self.client / "images.npy"),
            callers=CALLERS,
        )
        load = Load(self.host.cluster.machine, self.client, task)
        self.host.cluster.wait(lambda: load.calls or not load.running(), "the first answer")
        return load

    def keep_on(self, load: Load, enough: Callable[[list[Call]], object], what: str) -> list[Call]:
        """Let the clients go on until the calls from now on are enough; gives those."""
        now = time.time()
        self.host.cluster.wait(lambda: enough(load.since(now)) or not load.running(), what)
        return load.since(now)


@pytest.fixture(scope="module")
def story(cluster: Cluster, gateway: Gateway) -> Iterator[Story]:
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
    pods = cluster.kubectl("describe", "pods", f"--namespace={NAMESPACE}")
    (cluster.machine.logs / "pods.log").write_text(pods)


def test_two_replicas_become_ready_and_answer(story: Story) -> None:
    story.host.apply(story.bundles["first"], 2)
    load = story.load()
    calls = story.keep_on(load, lambda calls: len(calls) > 200 and len(per_replica(calls)) == 2, "both to answer")
    load.stop()
    assert {call.mr_enclave for call in calls} == {story.first}
    assert {call.version for call in calls} == {1}
    assert lost(calls) == []


def test_a_third_replica_gets_its_share(story: Story) -> None:
    load = story.load()
    story.host.scale(3)
    calls = story.keep_on(load, lambda calls: len(calls) > 600, "600 calls to three")
    assert lost(load.stop()) == []
    shares = per_replica(calls)
    assert len(shares) == 3
    # Connections are dealt out, of 20 calls each: a fair share is a third, give or take chance.
    assert min(shares.values()) > len(calls) / 6, shares


def test_a_pod_is_killed_under_load(story: Story) -> None:
    load = story.load()
    victim = story.host.pods()[0]["metadata"]["name"]
    story.host.kill(victim)
    story.host.cluster.wait(lambda: victim not in names(story), "the pod to be gone")
    story.host.routed(3)
    story.keep_on(load, lambda calls: len(per_replica(calls)) == 3, "three to answer again")
    calls = load.stop()
    # What was under way in the killed pod is lost, and asked again; nothing else is.
    assert [call for call in calls if call.failed] == []
    assert len(lost(calls)) <= 2 * CALLERS, lost(calls)


def test_a_new_version_of_the_model_under_load(story: Story) -> None:
    story.owner.seal(2)
    story.bundles["version 2"] = story.host.take("version-2")
    load = story.load()
    story.host.apply(story.bundles["version 2"], 3)
    after = story.keep_on(load, lambda calls: len(calls) > 100, "a hundred calls to the new version")
    calls = load.stop()
    assert {call.version for call in calls} == {1, 2}
    assert {call.version for call in after} == {2}
    assert lost(calls) == []


def test_a_new_measurement_with_an_overlap_then_the_old_one_is_revoked(story: Story) -> None:
    # Measured, like everything that the enclave is told.
    story.owner.change_deployment(serving={"poll_seconds": 2.0})
    story.second = story.owner.build_enclave()
    assert story.second != story.first
    story.bundles["second"] = story.host.take("second")
    story.accept(story.owner.change_policy({"first": story.first, "second": story.second}))
    load = story.load()
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
    load = story.load()
    story.host.begin(story.bundles["version 2"], 3)
    story.host.cluster.wait(lambda: "policy.mr_enclave" in refusals(story), "the old enclave to be refused")
    assert story.host.ready() == 3
    story.host.apply(story.bundles["second"], 3)
    calls = load.stop()
    assert {call.mr_enclave for call in calls} == {story.second}
    assert lost(calls) == []


def test_a_tampered_image_gets_no_key(story: Story) -> None:
    image = tampered(story)
    sound = names(story)
    before = len(story.owner.log())
    load = story.load()
    story.host.begin(story.bundles["second"], 3, image=image)
    said = "launcher.trusted_file"
    story.host.cluster.wait(lambda: said in story.host.last_words(), "the tampered enclave to be stopped")
    assert story.host.ready() == 3
    assert sound < names(story)
    assert [entry for entry in story.owner.log()[before:] if entry["event"] == "key.released"] == []
    calls = story.keep_on(load, lambda calls: len(calls) > 50, "fifty calls to what is sound")
    load.stop()
    assert lost(calls) == []


def names(story: Story) -> set[str]:
    """The names of the replicas' pods."""
    return {pod["metadata"]["name"] for pod in story.host.pods()}


def lost(calls: list[Call]) -> list[str]:
    """Every attempt that failed."""
    return [attempt for call in calls for attempt in call.lost]


def refusals(story: Story) -> set[str]:
    """The checks for which the owner's log has refusals."""
    return {str(entry["fields"].get("check")) for entry in story.owner.log() if entry["event"] == "key.refused"}


def tampered(story: Story) -> str:
    """The servers' image with a line more in the program that the enclave executes; gives its name."""
    manifest = (story.owner.bundle / "enclave" / "server.manifest.sgx").read_text()
    path = re.search(r'file:(enclave/image/[^"]*/ensconce/serving/__init__\.pyc)"', manifest)
    assert path
    name, changed = "localhost/ensconce/server-simulated:tampered", story.client.parent / "tampered.tar"
    change_image(story.archive, changed, name, {f"/opt/ensconce/{path[1]}": b"# Copies every request to its host.\n"})
    story.host.cluster.load_image(changed)
    return name
