"""The twelve steps, the attacks, and what the host could see: played for real, and reported as data."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ensconce.addresses import Address
from ensconce.cluster.owner import OwnerFolder
from ensconce.demo.attacks import ATTACKS, Attack, Host, Outcome
from ensconce.demo.classify import Errand
from ensconce.demo.data import digits_folder, held_out
from ensconce.demo.search import Found, Needles, image_needles, key_needles, search, weight_needles
from ensconce.demo.stage import DOMAIN, Stage, arguments_of, processes_below
from ensconce.demo.tap import Tap
from ensconce.demo.witness import Witness
from ensconce.errors import EnsconceError
from ensconce.keys import get_private_key
from ensconce.platform.simulated.control import PlatformControl

__all__ = ["Result", "Step", "play"]

_WANTED_ACCURACY = 0.98
_OVER_REST = 60
_LAST_WEEK, _NOW = 1, 2
_AT_ONCE = 3
_DYING_S = 2.0


@dataclass(frozen=True)
class Step:
    """One line of the closing table: a step of the story, what happened, what the host could see of it."""

    name: str
    happened: str
    host_saw: str
    seconds: float


@dataclass
class Result:
    """The whole demo: ``ok`` says that every step and every refusal was as it must be."""

    steps: list[Step] = field(default_factory=list)
    attacks: list[dict[str, Any]] = field(default_factory=list)
    client: list[dict[str, Any]] = field(default_factory=list)
    gateway: str = ""
    host_view: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Nothing went otherwise than it must."""
        return not self.failures

    def to_json_object(self) -> dict[str, Any]:
        """As ``ensconce demo --json`` prints it."""
        return {"ok": self.ok, **asdict(self)}


def play(tell: Callable[[Step], None]) -> Result:
    """Play the story on a fresh stage.

    Args:
        tell: called after each step.

    Raises:
        EnsconceError: a step of the story itself failed, so that there is nothing to go on with.
    """
    result = Result()
    began = time.monotonic()
    with Stage.open() as stage:
        story = _Story(stage, result, tell)
        with ExitStack() as closing:
            story.play(closing)
        story.after()
        result.seconds = round(time.monotonic() - began, 2)
    return result


class _Story:
    def __init__(self, stage: Stage, result: Result, tell: Callable[[Step], None]) -> None:
        self._stage = stage
        self._result = result
        self._tell = tell
        self._last = time.monotonic()
        self._needles = Needles()
        self._mr_enclave = ""
        self._taps: tuple[Tap, Tap] | None = None
        self._witness: Witness | None = None

    def play(self, closing: ExitStack) -> None:
        """From the owner's folder to the last attack."""
        stage = self._stage
        self._owner_prepares()
        shutil.copytree(stage.owner / "bundle", stage.host)
        shutil.move(stage.root / "last-week", stage.host / "last-week")
        self._witness = closing.enter_context(Witness(stage.host, stage.root / "witness"))
        stage.provision_serve("--owner", str(stage.owner))
        self._host_serves()
        self._taps = (
            closing.enter_context(Tap(Address("127.0.0.1", stage.ports.grpc), stage.root / "tap" / "grpc")),
            closing.enter_context(Tap(Address("127.0.0.1", stage.ports.rest), stage.root / "tap" / "rest")),
        )
        self._client_predicts()
        self._host_attacks()
        stage.run("down", "--host", str(stage.host), party="host")
        for process in list(stage.servers):
            stage.end(process)
        # What was killed takes a moment to be gone: nginx's workers end after the master that was waited for.
        until = time.monotonic() + _DYING_S
        while (left := processes_below(stage.root)) and time.monotonic() < until:
            time.sleep(0.02)
        self._check(not left, f"{len(left)} processes are left: {[arguments_of(pid) for pid in left]}")
        self._step("everything stops", "no process is left", "the same files, and no process to ask")

    def after(self) -> None:
        """What the host could see, once everything that it saw is written down."""
        stage, witness, taps = self._stage, self._witness, self._taps
        assert witness is not None
        assert taps is not None
        haystack = [stage.host, stage.root / "witness", stage.root / "tap"]
        found = search(haystack, self._needles)
        control = search([digits_folder() / "openvino", stage.client / "images.npy"], self._needles)
        passed = sum(tap.recorded for tap in taps)
        self._result.host_view = {
            "files": found.files,
            "bytes": found.bytes,
            "gateway_bytes": passed,
            "windows": found.windows,
            "hits": [list(hit) for hit in found.hits],
            "missed_files": witness.missed,
            "control_hits": len(control.hits),
        }
        self._check(not found.hits, f"the host saw secrets: {found.hits[:3]}")
        self._check(not witness.missed, f"files were gone before they could be looked at: {witness.missed[:3]}")
        self._check(passed > 0, "nothing passed the gateway")
        self._check(_control_is_good(control), "the search does not find what is there: its result means nothing")
        self._step(
            "what the host could see",
            f"{found.windows} pieces of weights, keys and pixels searched in {found.files} files "
            f"({found.bytes / 1e6:.0f} MB) and {passed / 1e6:.1f} MB of traffic; "
            f"the same search finds {len(control.hits)} of them in the owner's and the client's files",
            "nothing" if not found.hits else f"{len(found.hits)} pieces",
        )

    def _owner_prepares(self) -> None:
        stage = self._stage
        stage.init(stage.owner)
        self._step("owner: init", "authority, keystore, signing keys, audit log, ensconce.yaml", "nothing")
        with ThreadPoolExecutor() as meanwhile:
            building = meanwhile.submit(self._run_owner, "enclave", "build", "--json")
            # The host prepares its impostor in good time.
            forging = meanwhile.submit(stage.init, stage.root / "impostor", "host")
            self._owner_seals()
            identity = building.result()
            forging.result()
        self._mr_enclave = identity["mr_enclave"]
        self._run_owner("policy", "write")
        for name in ("policy.yaml", "ca.pem"):
            shutil.copy(stage.owner / name, stage.client)
        self._step(
            "owner: enclave, policy",
            f"MRENCLAVE {self._mr_enclave[:16]}..., signed; the policy names it for digits",
            "the server's code, its manifest, its signature",
        )

    def _owner_seals(self) -> None:
        models = self._stage.owner / "bundle" / "models"
        source = digits_folder() / "openvino"
        self._seal(source, _LAST_WEEK)
        for key_id, secret in self._secrets():
            self._needles |= key_needles(key_id, secret)
        shutil.copytree(models, self._stage.root / "last-week")
        self._run_owner("model", "retire", "--name", "digits", "--version", str(_LAST_WEEK))
        shutil.rmtree(models / "digits" / str(_LAST_WEEK))
        (models / "digits" / f"{_LAST_WEEK}.json").unlink()
        size = self._seal(source, _NOW)
        self._needles |= weight_needles((source / "model.bin").read_bytes())
        self._needles |= image_needles(held_out(digits_folder())[0])
        for key_id, secret in self._secrets():
            self._needles |= key_needles(key_id, secret)
        self._step(
            "2 owner seals the model",
            f"digits/{_NOW}: {size} bytes under a fresh key; the key of last week's digits/{_LAST_WEEK} is retired",
            "ciphertext, file names and sizes",
        )

    def _host_serves(self) -> None:
        stage = self._stage
        status = stage.run("up", "--host", str(stage.host), "--json", party="host")
        self._result.gateway = status["gateway_about"]
        replicas = status["replicas"]
        # Beside those of platforms lies what is remembered of the newest seen.
        cached = [path for path in (stage.owner / "state").glob("collateral_*") if path.name != "collateral_newest"]
        self._check(len(cached) == 1, f"{len(cached)} collateral files cached, not 1")
        self._step(
            "1 collateral", f"fetched from the PCCS and cached: {', '.join(path.name for path in cached)}", "all of it"
        )
        starts = sum(replica["restarts"] for replica in replicas)
        self._step(
            "3 replicas start in enclaves",
            f"{len(replicas)} replicas, measured and launched by the simulated platform, {starts} restarts",
            "process ids, ports, log lines without payload",
        )
        self._keys_were_released(replicas)
        served = {name for replica in replicas for name in replica["servables"]}
        self._check(served == {f"digits/{_NOW}"}, f"the replicas serve {served}")
        self._step("7, 8 decrypt and load", f"{', '.join(sorted(served))}, in memory only", "that memory is used")

    def _keys_were_released(self, replicas: list[dict[str, Any]]) -> None:
        """Steps 4, 5 and 6, as the owner's log has them."""
        log = self._run_owner("audit", "show", "--json")
        releases = [entry["fields"] for entry in log["entries"] if entry["event"] == "key.released"]
        keys = {fields["tls_key_sha256"] for fields in releases}
        self._check(
            keys == {replica["key_sha256"] for replica in replicas}, "other keys were certified than those served"
        )
        self._step(
            "4 replicas meet the owner", f"{len(keys)} TLS keys, each bound to its quote and channel", "TLS records"
        )
        judged = {(fields["tcb_status"], fields["mr_enclave"]) for fields in releases}
        self._check(judged == {("UpToDate", self._mr_enclave)}, f"the policy accepted {judged}")
        status, measurement = next(iter(judged), ("nobody", ""))
        self._step(
            "5 the policy judges", f"{status}, MRENCLAVE {measurement[:16]}..., the root by its hash", "TLS records"
        )
        released = [key for fields in releases for key in fields["key_ids"]]
        self._check(released == [f"model/digits/{_NOW}"] * len(replicas), f"released: {released}")
        self._step("6 keys are released", f"{', '.join(released)}, each in the log before it left", "TLS records")

    def _client_predicts(self) -> None:
        first = self._classify(connections=4)
        self._step(
            "9 client verifies", f"{len(first['measurements'])} replicas accepted before a byte is sent", "TLS records"
        )
        self._step(
            "10 gateway passes through", f"{self._result.gateway}, by the name in the ClientHello", "TLS records"
        )
        self._step("11 replicas share the load", _shares(first), "which connection goes to which replica")
        self._check(first["accuracy"] >= _WANTED_ACCURACY, f"accuracy {first['accuracy']:.3f}")
        self._check(first["rest_accuracy"] >= 0.9, f"accuracy over REST {first['rest_accuracy']:.3f}")
        self._check(len(first["per_replica"]) == 2, f"{len(first['per_replica'])} replicas answered, not 2")
        self._step(
            "12 predictions",
            f"{first['images']} images over gRPC, accuracy {first['accuracy']:.1%}; {first['rest_images']} over REST, "
            f"{first['rest_accuracy']:.1%}; latency p50 {first['p50_ms']:.1f} ms, p90 {first['p90_ms']:.1f} ms, "
            f"p99 {first['p99_ms']:.1f} ms",
            "how many bytes, when",
        )
        self._stage.run("scale", "3", "--host", str(self._stage.host), "--json", party="host")
        second = self._classify(connections=6)
        new = set(second["per_replica"]) - set(first["per_replica"])
        self._check(len(new) == 1, f"{len(new)} new replicas got traffic, not 1")
        self._step("scale to 3", _shares(second), "a third process")

    def _host_attacks(self) -> None:
        host = Host(self._stage, PlatformControl(self._stage.host / "run" / "platform.sock"))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            side_by_side = [attack for attack in ATTACKS if not attack.takes_over]
            for attack, outcome in zip(
                side_by_side, pool.map(lambda each: _carried_out(each, host), side_by_side), strict=True
            ):
                self._report(attack, outcome)
        for attack in ATTACKS:
            if attack.takes_over:
                self._report(attack, _carried_out(attack, host))

    def _report(self, attack: Attack, outcome: Outcome | EnsconceError) -> None:
        if isinstance(outcome, EnsconceError):
            self._check(False, f"{attack.name}: {outcome}")
            self._step(f"attack: {attack.name}", f"NOT AS IT MUST BE: {outcome}", "?")
            return
        self._result.attacks.append(
            {
                "name": attack.name,
                "story": attack.story,
                "as_it_must": outcome.failed_as_it_must,
                "expected": list(attack.checks),
                "stopped": [{"by": stop.by, **stop.error.fields()} for stop in outcome.stopped],
            }
        )
        checks = ", then ".join(f"{stop.by}: {stop.error.check}" for stop in outcome.stopped)
        self._check(outcome.failed_as_it_must, f"{attack.name}: stopped by {checks}, not by {attack.checks}")
        self._step(f"attack: {attack.name}", f"stopped by {checks}", "a refusal")

    def _classify(self, connections: int) -> dict[str, Any]:
        stage, taps = self._stage, self._taps
        assert taps is not None
        errand = Errand(
            grpc=f"127.0.0.1:{taps[0].address[1]}",
            rest=f"127.0.0.1:{taps[1].address[1]}",
            server_name=DOMAIN,
            policy=str(stage.client / "policy.yaml"),
            ca=str(stage.client / "ca.pem"),
            pccs=f"http://127.0.0.1:{stage.ports.pccs}",
            connections=connections,
            over_rest=_OVER_REST,
        )
        path = stage.client / "errand.json"
        path.write_text(json.dumps(asdict(errand)))
        report = stage.program("ensconce.demo.classify", str(path), party="client")
        assert isinstance(report, dict)
        self._result.client.append(report)
        return report

    def _seal(self, source: Path, version: int) -> int:
        sealed = self._run_owner("model", "seal", str(source), "--name", "digits", "--version", str(version), "--json")
        return sum(file["size"] for file in sealed["files"])

    def _run_owner(self, *arguments: str) -> Any:
        return self._stage.run(*arguments, "--owner", str(self._stage.owner))

    def _secrets(self) -> Iterator[tuple[str, bytes]]:
        """The secret part of everything in the keystore, and what opens it."""
        owner = OwnerFolder.open(self._stage.owner)
        yield "unlock.key", owner.unlock_file.read_bytes()
        keystore = owner.keystore()
        for entry in keystore.entries():
            match entry.kind:
                case "ed25519":
                    yield entry.key_id, get_private_key(keystore, entry.key_id, "ed25519").private_bytes_raw()
                case "ec":
                    scalar = get_private_key(keystore, entry.key_id, "ec").private_numbers().private_value
                    yield entry.key_id, scalar.to_bytes(32, "big")
                case "rsa":
                    numbers = get_private_key(keystore, entry.key_id, "rsa").private_numbers()
                    yield entry.key_id, numbers.p.to_bytes(192, "big") + numbers.q.to_bytes(192, "big")
                case _ if entry.retired is None:
                    yield entry.key_id, keystore.get(entry.key_id)

    def _check(self, holds: bool, problem: str) -> None:
        if not holds:
            self._result.failures.append(problem)

    def _step(self, name: str, happened: str, host_saw: str) -> None:
        now = time.monotonic()
        step = Step(name, happened, host_saw, round(now - self._last, 2))
        self._last = now
        self._result.steps.append(step)
        self._tell(step)


def _carried_out(attack: Attack, host: Host) -> Outcome | EnsconceError:
    try:
        return Outcome(attack, tuple(attack.carry_out(host)))
    except EnsconceError as error:
        return error


def _control_is_good(control: Found) -> bool:
    kinds = {what for what, _, _ in control.hits}
    return {"model weights", "client's pixels"} <= kinds


def _shares(report: dict[str, Any]) -> str:
    parts = [f"{name[:8]} served {count}" for name, count in sorted(report["per_replica"].items())]
    return ", ".join(parts)
