"""How many attested releases a second, what they cost, and where the time goes.

    python benchmarks/provisioning.py [--rounds N] [--seconds S] [--clients N] [--folder DIR]

A server as `ensconce provision serve` makes it runs in a process of its own, on a real socket, with a real log. Clients
are in two processes beside it, each client an enclave of the simulated platform that asks again and again; every
release is a whole one: new key, handshake, two quotes, two appraisals, key, certificate, synced log. Clients and server
share the machine, so the rate is theirs together. The processor time of each side is measured too, and the server's
tells what it would do alone, where the log's disk lets it.

Variants: verification in processes (what the command does) and in threads of the server. Every round runs each of them
(A B A B ...), so that a slow minute hits both alike. The steps are measured one by one in this process, without any
concurrency.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from ensconce.addresses import Address
from ensconce.appraisal.appraiser import Appraiser
from ensconce.appraisal.collateral import Collateral
from ensconce.appraisal.dcap import verify_quote
from ensconce.appraisal.policy import Identity, Policy
from ensconce.appraisal.pool import VerifierPool
from ensconce.appraisal.verdict import TcbStatus
from ensconce.audit.log import AuditLog
from ensconce.evidence.report import Attributes, SgxReport
from ensconce.keys import FolderPlace, SealedKeystore, new_key_file
from ensconce.platform.simulated.pki import SimulatedVendor
from ensconce.platform.simulated.quoting import make_quote
from ensconce.provisioning.client import provision
from ensconce.provisioning.judgement import Judged
from ensconce.provisioning.limits import Limits
from ensconce.provisioning.release import Release
from ensconce.provisioning.server import ProvisioningServer
from ensconce.ratls.authority import CertificateAuthority
from ensconce.ratls.context import client_context, server_context
from ensconce.ratls.request import make_certificate_request, make_key_container
from ensconce.ratls.verify import read_signed_request

DOMAIN, SERVER_NAME = "digits.example.test", "provisioning.digits.example.test"
VARIANTS = ("processes", "threads")
RATE = "releases a second, with the clients on the same machine"
NO_LIMITS = Limits(address_rate=1e6, address_burst=10**6, identity_rate=1e6, identity_burst=10**6)


def now() -> int:
    """Seconds since 1970."""
    return int(time.time())


@dataclass(frozen=True)
class FromVendor:
    """Collateral that is there already, as it is in all but one request a day."""

    collateral: Collateral

    def get_for(self, quote: bytes) -> Collateral:  # noqa: ARG002
        """The vendor's."""
        return self.collateral

    def doubt(self, quote: bytes) -> None:
        """Never heard of."""


def the_vendor() -> SimulatedVendor:
    """The same one in every process."""
    return SimulatedVendor(b"benchmark".ljust(32), 1_750_000_000)


def the_report(vendor: SimulatedVendor) -> SgxReport:
    """A sound enclave."""
    return replace(
        SgxReport.from_bytes(bytes(384)),
        cpu_svn=vendor.cpu_svn,
        attributes=Attributes(Attributes.INIT | Attributes.MODE64BIT, 3),
        mr_enclave=b"\x11" * 32,
    )


def owner(folder: Path) -> dict[str, Any]:
    """What a server needs, made in ``folder``."""
    vendor = the_vendor()
    identity = Identity(name="replica", mr_enclave=b"\x11" * 32, receives=("model/digits",))
    policy = Policy(roots=(vendor.root_name,), tcb_statuses=(TcbStatus.UP_TO_DATE,), identities=(identity,))
    keystore = SealedKeystore.create(FolderPlace(folder / "keystore"), new_key_file(folder / "unlock.key"))
    keystore.put("model/digits/1", os.urandom(16), kind="wrap")
    return {
        "server_name": SERVER_NAME,
        "authority": CertificateAuthority.create("the owner", now()),
        "appraiser": Appraiser(policy, FromVendor(vendor.collateral(now())), now),
        "keystore": keystore,
        "audit": AuditLog.open(folder / "audit", Ed25519PrivateKey.generate(), now),
        "domain": DOMAIN,
        "now": now,
    }


def serve(variant: str) -> None:
    """The server's process: says its port and its authority, serves until its input ends, then says what it took."""
    with tempfile.TemporaryDirectory(prefix="provisioning-", dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        pool = VerifierPool() if variant == "processes" else None
        parts = owner(Path(folder))
        verify = pool.verify if pool is not None else verify_quote
        workers = [] if pool is None else [worker._process.pid for worker in pool._workers]
        appraiser, vendor = parts["appraiser"], the_vendor()
        case = appraiser.gather(make_quote(vendor, the_report(vendor)))
        with ThreadPoolExecutor(8) as warm:
            list(warm.map(lambda _: appraiser.verify(case, verify), range(50)))
        server = ProvisioningServer(Address("127.0.0.1", 0), limits=NO_LIMITS, verify=verify, **parts)
        before = processor_time(os.getpid()), sum(map(processor_time, workers))
        print(json.dumps({"port": server.port, "ca": parts["authority"].certificate_pem.decode()}), flush=True)

        def wait() -> None:
            sys.stdin.readline()
            server.stop()

        threading.Thread(target=wait).start()
        server.serve_forever()
        spent = {
            "loop": processor_time(os.getpid()) - before[0],
            "workers": sum(map(processor_time, workers)) - before[1],
        }
        steps = {
            sample.labels["step"]: sample.value
            for metric in server.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "ensconce_provisioning_seconds_sum"
        }
        if pool is not None:
            pool.close()
        print(json.dumps(spent))
        print(json.dumps(steps), flush=True)


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has taken (proc(5), stat, fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask() -> None:
    """A client's process: asks until its time is over, then says how often and what that took of the processor."""
    given = json.loads(sys.stdin.readline())
    vendor = the_vendor()
    report = the_report(vendor)
    sys.stdin.readline()
    spent = time.process_time()
    end = time.monotonic() + given["seconds"]

    def one(_: int) -> list[float]:
        waited = []
        while time.monotonic() < end:
            began = time.perf_counter()
            provision(
                [f"127.0.0.1:{given['port']}"],
                SERVER_NAME,
                given["ca"].encode(),
                lambda data: make_quote(vendor, replace(report, report_data=data)),
                DOMAIN,
                [("digits", 1)],
            )
            waited.append(time.perf_counter() - began)
        return waited

    with ThreadPoolExecutor(given["clients"]) as clients:
        waited = [each for some in clients.map(one, range(given["clients"])) for each in some]
    print(json.dumps({"waited": waited, "cpu": time.process_time() - spent}), flush=True)


def start(*arguments: str) -> subprocess.Popen[str]:
    """This script again, as another process."""
    return subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> Any:
    """Read a line of JSON from a process."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def run(variant: str, clients: int, seconds: float) -> dict[str, float]:
    """One variant under load; rates per second, times in milliseconds per release."""
    server = start("--serve", variant)
    place = hear(server)
    askers = [start("--ask") for _ in range(2)]
    for asker in askers:
        tell(asker, json.dumps({**place, "seconds": seconds, "clients": max(1, clients // 2)}))
    began = time.monotonic()
    for asker in askers:
        tell(asker, "go")
    answers = [hear(asker) for asker in askers]
    took = time.monotonic() - began
    for asker in askers:
        asker.wait()
    tell(server, "stop")
    spent, steps = hear(server), hear(server)
    server.wait()
    waited = [1000 * each for answer in answers for each in answer["waited"]]
    count = len(waited)
    server_ms = 1000 * (spent["loop"] + spent["workers"]) / count
    return {
        RATE: count / took,
        "latency, median, ms": statistics.median(waited),
        "latency, 99th percentile, ms": statistics.quantiles(waited, n=100)[98],
        "processor, clients, ms a release": 1000 * sum(answer["cpu"] for answer in answers) / count,
        "processor, server, ms a release": server_ms,
        "  of it its own process": 1000 * spent["loop"] / count,
        "  of it its workers": 1000 * spent["workers"] / count,
        "releases a second that its processor time alone would allow": 1000 * (os.cpu_count() or 1) / server_ms,
        **{f"  {step}, ms from asking to done": 1000 * value / count for step, value in steps.items()},
    }


def steps(folder: Path) -> dict[str, Callable[[], object]]:
    """Each step of one release, to be timed by itself."""
    vendor, parts = the_vendor(), owner(folder)
    report, appraiser = the_report(vendor), parts["appraiser"]
    key = ec.generate_private_key(ec.SECP256R1())
    request = make_certificate_request(key, DOMAIN, lambda d: make_quote(vendor, replace(report, report_data=d)))
    quote = make_quote(vendor, report)
    case = appraiser.gather(quote)
    verdict = appraiser.verify(case)
    accepted = appraiser.policy.judge(verdict)
    judged = Judged(accepted, read_signed_request(request), accepted)
    release = Release(parts["keystore"], parts["authority"], DOMAIN, now, 24 * 3600)
    prepared = release.prepare(judged, ["model/digits/1"], "127.0.0.1:1")
    events = [(event.name, event.fields) for event in prepared.events]
    server_key = ec.generate_private_key(ec.SECP256R1())
    chain = parts["authority"].issue_server(server_key.public_key(), SERVER_NAME, now=now())
    contexts = (
        server_context(server_key, x509.load_pem_x509_certificate(chain)),
        client_context(key, make_key_container(key), parts["authority"].certificate),
    )
    pool = VerifierPool(1)
    return {
        "handshake, both ends": lambda: shake_hands(*contexts),
        "certificate request read": lambda: read_signed_request(request),
        "collateral and the quote's chain, twice": lambda: [appraiser.gather(quote) for _ in range(2)],
        "verification here, twice": lambda: [appraiser.verify(case) for _ in range(2)],
        "verification in a process, twice": lambda: [appraiser.verify(case, pool.verify) for _ in range(2)],
        "policy, twice": lambda: [appraiser.policy.judge(verdict) for _ in range(2)],
        "key from the keystore": lambda: parts["keystore"].get("model/digits/1"),
        "key, certificate and answer": lambda: release.prepare(judged, ["model/digits/1"], "127.0.0.1:1"),
        "log, synced, alone": lambda: parts["audit"].append_many(events),
        "log, synced, sixteen at once, for each": lambda: parts["audit"].append_many(events * 16),
        "(client) a quote": lambda: make_quote(vendor, report),
    }


def shake_hands(server_context_: SSL.Context, client_context_: SSL.Context) -> None:
    """A TLS handshake in memory."""
    server, client = SSL.Connection(server_context_, None), SSL.Connection(client_context_, None)
    server.set_accept_state()
    client.set_connect_state()
    client.set_tlsext_host_name(SERVER_NAME.encode())
    done = [False, False]
    while not all(done):
        for at, (one, other) in enumerate(((client, server), (server, client))):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
                done[at] = True
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))


def time_steps(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every step, one value for each round."""
    with tempfile.TemporaryDirectory(prefix="provisioning-", dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        every = steps(Path(folder))
        for step in every.values():
            step()
        values: dict[str, list[float]] = {name: [] for name in every}
        for _ in range(rounds):
            for name, step in every.items():
                repeat = 20
                began = time.perf_counter()
                for _ in range(repeat):
                    step()
                each = 16 if "sixteen" in name else 1
                values[name].append(1000 * (time.perf_counter() - began) / repeat / each)
        return values


def show(title: str, rows: dict[str, list[float]]) -> None:
    """Median, and from the lowest to the highest."""
    print(f"\n{title}")
    for name, values in rows.items():
        print(f"  {name:<62} {statistics.median(values):9.2f}   {min(values):.2f} to {max(values):.2f}")


def main() -> None:
    """Run the rounds and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each variant in each round")
    parser.add_argument("--clients", type=int, default=32, help="that ask at the same time")
    parser.add_argument("--folder", type=Path, default=None, help="where log and keystore go")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        os.environ["BENCHMARK_FOLDER"] = str(options.folder)
    if options.serve:
        serve(options.serve)
    elif options.ask:
        ask()
    else:
        print(f"{os.cpu_count()} processors, {options.clients} clients, {options.rounds} rounds of {options.seconds} s")
        show("One step of one release, alone, ms", time_steps(options.rounds))
        runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
        for _ in range(options.rounds):
            for variant in VARIANTS:
                runs[variant].append(run(variant, options.clients, options.seconds))
        for variant, results in runs.items():
            show(f"Verification in {variant}", {name: [each[name] for each in results] for name in results[0]})
        ratios = [a[RATE] / b[RATE] for a, b in zip(runs["processes"], runs["threads"], strict=True)]
        show("Processes over threads, releases a second, ratio round by round", {"ratio": ratios})


if __name__ == "__main__":
    main()
