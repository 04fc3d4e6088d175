"""The client's process: verify, send the held-out images over gRPC and some over REST, and report.

Run as ``python -m ensconce.demo.classify CONFIG``; CONFIG is a JSON file, the report is JSON on standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography import x509

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.client.channel import open_channel
from ensconce.client.load import run
from ensconce.client.predict import Client
from ensconce.client.rest import http_client
from ensconce.client.service import Service, read_authority
from ensconce.cluster.client import open_appraiser
from ensconce.demo.data import digits_folder, held_out
from ensconce.errors import EnsconceError

__all__ = ["Errand", "Report", "main"]


@dataclass(frozen=True)
class Errand:
    """What the client is to do.

    Attributes:
        grpc: address of the gRPC API.
        rest: address of the REST API.
        server_name: the service's TLS name.
        policy: the client's policy file.
        ca: the owner's authority.
        pccs: where collateral comes from.
        connections: attested connections over gRPC.
        over_rest: how many of the images to send over REST as well.
    """

    grpc: str
    rest: str
    server_name: str
    policy: str
    ca: str
    pccs: str
    connections: int
    over_rest: int


@dataclass(frozen=True)
class Report:
    """What came of it: counts, share of right answers, latencies in milliseconds, calls by replica id."""

    images: int
    accuracy: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    seconds: float
    per_replica: dict[str, int]
    measurements: dict[str, str]
    rest_images: int
    rest_accuracy: float


def classify(errand: Errand) -> Report:
    """Do the errand; the images are kept in the client's folder as they are sent.

    Nothing is sent on any connection before its replica was accepted.

    Raises:
        EnsconceError: a replica was refused, or did not answer.
    """
    images, labels = held_out(digits_folder())
    rows = images.astype(np.float32)[..., np.newaxis]
    np.save(Path(errand.policy).with_name("images.npy"), rows)
    appraiser = open_appraiser(Path(errand.policy), errand.pccs)
    authority = read_authority(Path(errand.ca))
    service = Service(
        targets=(Address.parse(errand.grpc),),
        server_name=errand.server_name,
        appraiser=appraiser,
        authority=authority,
    )
    with Client(open_channel(service, connections=errand.connections)) as client:
        batches = [{"images": rows[n : n + 1]} for n in range(len(rows))]
        result = run(client, "digits", batches, concurrency=errand.connections)
        classes = np.array([outputs["classes"][0] for outputs in result.predictions])
        measurements = {
            name: str(each.acceptance.report.measurements()["mr_enclave"]) for name, each in client.accepted.items()
        }
    rest = _over_rest(errand, rows[: errand.over_rest], appraiser, authority)
    return Report(
        images=len(rows),
        accuracy=float(np.mean(classes == labels)),
        p50_ms=result.percentile(50) * 1000,
        p90_ms=result.percentile(90) * 1000,
        p99_ms=result.percentile(99) * 1000,
        seconds=result.seconds,
        per_replica=result.per_replica,
        measurements=measurements,
        rest_images=len(rest),
        rest_accuracy=float(np.mean(rest == labels[: len(rest)])) if len(rest) else 0.0,
    )


def _over_rest(
    errand: Errand, rows: npt.NDArray[np.float32], appraiser: Appraiser, authority: x509.Certificate
) -> npt.NDArray[Any]:
    if not len(rows):
        return np.array([])
    with http_client(Address.parse(errand.rest), errand.server_name, appraiser, authority=authority) as client:
        answer = client.post("/v1/models/digits:predict", json={"instances": rows.tolist()})
        answer.raise_for_status()
        return np.array([row["classes"] for row in answer.json()["predictions"]])


def main(arguments: list[str]) -> int:
    """Read the errand, do it, print the report."""
    try:
        report = classify(Errand(**json.loads(Path(arguments[0]).read_text())))
    except EnsconceError as error:
        sys.stdout.write(json.dumps({"error": error.fields()}))
        return error.exit_status
    sys.stdout.write(json.dumps(asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
