"""A running server takes new policies, refuses bad ones, and is never without one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.policy_signing import SignedPolicy
from ensconce.appraisal.policy_store import DOCUMENT
from ensconce.appraisal.policy_text import dump_policy
from ensconce.appraisal.verdict import TcbStatus
from ensconce.cluster.owner import OwnerFolder
from ensconce.cluster.policy import apply_policy
from ensconce.cluster.provision import open_server
from ensconce.cluster.state import open_state
from ensconce.errors import InputError, RefusedError
from ensconce.keys import get_private_key
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.provisioning.client import Provisioned
from ensconce.provisioning.server import ProvisioningServer


@dataclass
class World:
    owner: OwnerFolder
    vendor: SimulatedVendor
    port: int
    replica: Callable[..., Provisioned]

    def policy(self, serial: int, **identity: object) -> Policy:
        code: dict[str, object] = {"name": "replica", "mr_enclave": b"\x11" * 32, "receives": ("model/digits",)}
        return Policy(
            serial=serial,
            roots=(self.vendor.root_name,),
            tcb_statuses=(TcbStatus.UP_TO_DATE,),
            identities=(Identity(**(code | identity)),),  # type: ignore[arg-type]
        )

    def signed(self, policy: Policy) -> SignedPolicy:
        key = get_private_key(self.owner.keystore(), "signing/owner", "ed25519")
        return SignedPolicy(dump_policy(policy), policy).signed_with(key)

    def apply(self, serial: int, **identity: object) -> None:
        apply_policy(self.owner, self.signed(self.policy(serial, **identity)))

    def ask(self) -> Provisioned:
        return self.replica(self.owner, [self.port], ("digits", 1), timeout=20)

    def events(self, name: str) -> list[dict[str, object]]:
        return [dict(entry.fields) for entry in self.owner.verified_log()[1] if entry.event == name]

    @contextlib.contextmanager
    def serving(self, policy_file: Path | None = None) -> Iterator[ProvisioningServer]:
        with open_server(self.owner, policy_file) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server
            finally:
                server.stop()
                thread.join(20)


@pytest.fixture
def world(
    tmp_path: Path,
    vendor: SimulatedVendor,
    find_port: Callable[[], int],
    owner_of: Callable[..., OwnerFolder],
    ask: Callable[..., Provisioned],
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    port = find_port()
    owner = owner_of([port])
    owner.keystore().put("model/digits/1", bytes(16), kind="wrap")
    return World(owner, vendor, port, ask)


def test_there_is_no_server_without_a_policy_in_force(world: World, tmp_path: Path) -> None:
    world.owner.policy_file.write_text(dump_policy(world.policy(1)))
    with pytest.raises(InputError, match="no policy is in force"), open_server(world.owner, None):
        pass


def test_a_new_policy_takes_effect_without_a_restart_and_without_a_gap(
    world: World, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    world.apply(1)
    with world.serving() as server, ThreadPoolExecutor(2) as clients:
        stop = threading.Event()
        answered = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                assert set(world.ask().secrets) == {"model/digits/1"}
                answered.set()

        asking = [clients.submit(keep_asking) for _ in range(2)]
        assert answered.wait(30)
        for serial in (2, 3, 4):
            world.apply(serial)
            if serial > 2:  # the first without being told
                server.look_again()
            wait_for(lambda serial=serial: server.appraiser.policy.serial == serial, f"policy {serial}")  # type: ignore[misc]
        assert world.ask()
        stop.set()
        for each in asking:
            each.result(30)
        world.apply(5, mr_enclave=b"\x22" * 32)
        server.look_again()
        wait_for(lambda: server.appraiser.policy.serial == 5, "policy 5")
        with pytest.raises(RefusedError) as caught:
            world.ask()
        assert caught.value.check == "policy.mr_enclave"
    assert [event["serial"] for event in world.events("policy.applied")] == [1, 2, 3, 4, 5]
    hashes = {event["policy_sha256"] for event in world.events("key.released")}
    assert hashes <= {world.policy(serial).sha256 for serial in (1, 2, 3, 4)}
    assert len(hashes) > 1


def test_a_bad_policy_is_recorded_once_and_the_old_one_stays(
    world: World, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    world.apply(7)
    with world.serving() as server:
        lax = world.signed(world.policy(8, mr_enclave=b"\x99" * 32))
        for document in (lax.to_document(), b"nonsense", world.signed(world.policy(3)).to_document()):
            before = len(world.events("policy.refused"))
            with open_state(world.owner).store.locked(DOCUMENT) as slot:
                slot.write(document)
            server.look_again()
            wait_for(lambda before=before: len(world.events("policy.refused")) > before, "policy.refused")  # type: ignore[misc]
            for _ in range(3):
                server.look_again()
            assert server.appraiser.policy.serial == 7
            assert set(world.ask().secrets) == {"model/digits/1"}
        world.apply(9)
        wait_for(lambda: server.appraiser.policy.serial == 9, "policy 9")
    checks = [event["check"] for event in world.events("policy.refused")]
    assert checks == ["policy.unrecorded", "policy.document", "policy.rollback"]


def test_whoever_holds_a_document_back_keeps_no_policy_from_a_server(
    world: World, wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    world.apply(1)
    store = open_state(world.owner).store
    wide = store.read(DOCUMENT)
    assert wide is not None
    with world.serving() as server:
        assert set(world.ask().secrets) == {"model/digits/1"}
        world.apply(2, mr_enclave=b"\x22" * 32)
        with store.locked(DOCUMENT) as slot:
            slot.write(wide)
        wait_for(lambda: server.appraiser.policy.serial == 2, "policy 2")
        with pytest.raises(RefusedError):
            world.ask()


def test_a_policy_named_on_the_command_line_is_fixed_for_the_run(world: World, tmp_path: Path) -> None:
    world.apply(1, mr_enclave=b"\x22" * 32)
    file = tmp_path / "own.yaml"
    file.write_text(dump_policy(world.policy(1)))
    with world.serving(file) as server:
        assert set(world.ask().secrets) == {"model/digits/1"}
        world.apply(2, mr_enclave=b"\x33" * 32)
        server.look_again()
        assert set(world.ask().secrets) == {"model/digits/1"}
