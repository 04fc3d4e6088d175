"""What kubectl tells: the pods, and a way to their ports. The user's own rights are what it has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ensconce.errors import EnsconceError, InputError, UnreachableError

__all__ = ["MAX_PODS", "forwarded", "get_pods", "parse_pods"]

MAX_PODS = 64 * 1024 * 1024
"""Most bytes of pods in JSON: a thousand replicas take about ten."""

_TIMEOUT_S = 30.0
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]{1,5}) -> ([0-9]{1,5})\n")


def get_pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """The pods that a label selector finds.

    Raises:
        InputError: ``kubectl.missing``.
        UnreachableError: ``kubectl.failed``: it says why.
    """
    command = ["kubectl", "get", "pods", "--namespace", namespace, "--selector", selector, "--output", "json"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise _missing(error) from error
    except subprocess.TimeoutExpired as error:
        raise _failed("it does not answer") from error
    if done.returncode:
        raise _failed(done.stderr.decode(errors="replace").strip()[-300:])
    return parse_pods(done.stdout)


def parse_pods(data: bytes) -> list[dict[str, Any]]:
    """The pods in a list as ``kubectl get pods --output json`` prints it.

    Raises:
        InputError: ``kubectl.pods``: it is none.
    """
    try:
        value = json.loads(data) if len(data) <= MAX_PODS else None
    except ValueError:
        value = None
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list) or not all(
        isinstance(each, dict) and each.get("kind", "Pod") == "Pod" for each in items
    ):
        raise InputError("kubectl.pods", "this is no list of pods", rule="what `kubectl get pods --output json` prints")
    return items


@contextlib.contextmanager
def forwarded(namespace: str, pod: str, ports: Sequence[int]) -> Iterator[dict[int, int]]:
    """A way to a pod's ports through the API server; gives the local port of each.

    Raises:
        InputError: ``kubectl.missing``.
        UnreachableError: ``kubectl.failed``.
    """
    command = ["kubectl", "port-forward", "--namespace", namespace, f"pod/{pod}", *(f":{port}" for port in ports)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise _missing(error) from error
    try:
        yield _local_ports(process, len(set(ports)))
    finally:
        process.terminate()
        process.communicate()


def _local_ports(process: subprocess.Popen[bytes], count: int) -> dict[int, int]:
    assert process.stdout is not None
    # Not through the stream's buffer: what lies in it already, select does not see.
    handle, said, until = process.stdout.fileno(), "", time.monotonic() + _TIMEOUT_S
    while True:
        found = {int(there): int(here) for here, there in _FORWARDING.findall(said)}
        if len(found) == count:
            return found
        ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
        data = os.read(handle, 4096) if ready else b""
        if not data:
            raise _failed(said.strip()[-300:] or "it forwards nothing")
        said += data.decode(errors="replace")


def _missing(error: OSError) -> EnsconceError:
    return InputError(
        "kubectl.missing", f"cannot run kubectl: {error.strerror}", remedy="install it, or give --pods what it printed"
    )


def _failed(said: str) -> EnsconceError:
    return UnreachableError("kubectl.failed", "kubectl does not get through", found=said, remedy="try the same with it")
