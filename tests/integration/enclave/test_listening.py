"""Where a replica listens: on the ports that its enclave was built with, or on free ones where those are taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensconce.enclave.config import ListenConfig


def test_measured_ports_give_way_to_free_ones(world: Any, tmp_path: Path, find_port: Callable[[], int]) -> None:
    ports = [find_port(), find_port()]
    listen = ListenConfig(grpc=f"127.0.0.1:{ports[0]}", rest=f"127.0.0.1:{ports[1]}")
    with world.serving(lifetime=3600) as server:
        world.accept(server, world.build(tmp_path, server.port, listen=listen).mr_enclave)
        first = world.launch(world.folder(1), tmp_path)
        assert [first.ready()["grpc"], first.ready()["rest"]] == ports
        # As `ensconce up` runs several of an enclave that was built for pods.
        second = world.launch(world.folder(1), tmp_path)
        assert not {second.ready()["grpc"], second.ready()["rest"]} & set(ports)
        assert "ports taken" in second.names()
        assert {entry["state"] for entry in second.rest("GET", "/v1/models/digits")["model_version_status"]} == {
            "AVAILABLE"
        }
