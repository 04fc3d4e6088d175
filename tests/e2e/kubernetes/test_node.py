"""The node itself: a pod from an image that was made here runs, and is reached through a Service."""

from __future__ import annotations

from onenode.cluster import Cluster
from onenode.configuration import PAUSE


def test_a_pod_of_a_local_image_runs(cluster: Cluster) -> None:
    restricted = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "pause", "image": PAUSE, "imagePullPolicy": "Never", "securityContext": restricted}
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "node-test", "labels": labels}}])
    cluster.wait(lambda: cluster.get("serviceaccount", "--namespace=node-test"), "the namespace's account")
    cluster.apply(
        [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "pause", "namespace": "node-test"},
                "spec": {"containers": [container], "automountServiceAccountToken": False},
            }
        ]
    )
    cluster.kubectl("wait", "--namespace=node-test", "--for=condition=Ready", "pod/pause", "--timeout=300s")
    cluster.kubectl("delete", "namespace", "node-test", "--timeout=300s")


def test_the_gateway_api_is_known(cluster: Cluster) -> None:
    assert "TLSRoute" in cluster.kubectl("api-resources", "--api-group=gateway.networking.k8s.io")
