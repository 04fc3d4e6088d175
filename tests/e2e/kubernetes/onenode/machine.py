"""A machine for one node: namespaces of its own, empty folders where a node keeps its own, nothing left at the end.

Everything in it sees the file system of this machine, but has its own network (no way out of it), processes, host name
and mounts. The first process waits at a pipe: when whoever holds the other end goes, however it goes, the kernel kills
everything in the machine, and the mounts go with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "10.89.0.1"
HOSTNAME = "onenode"
# Of the machine's own, empty at first. The first lot lies in memory, because etcd waits for every write.
_IN_MEMORY = ("/run", "/var/lib/etcd", "/etc/kubernetes", "/etc/cni", "/var/lib/cni")
_ON_DISK = ("/var/lib/containerd", "/var/lib/kubelet", "/var/log")
# A kubelet sets these, which are the whole machine's; it finds files of the machine's own, with what it wants in them.
_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
_CGROUPS = Path("/sys/fs/cgroup")

_INIT = """
set -e
mount --make-rprivate /
for folder in {in_memory}; do mkdir -p $folder; mount -t tmpfs -o mode=755 tmpfs $folder; done
for folder in {on_disk}; do mkdir -p $folder {disk}$folder; mount --bind {disk}$folder $folder; done
for setting in {settings}; do
  file=/run/settings/${{setting%=*}}
  mkdir -p "$(dirname "$file")"
  echo "${{setting#*=}}" > "$file"
  mount --bind "$file" "/proc/sys/${{setting%=*}}"
done
hostname {hostname}
ip link set lo up
# Nobody is at its other end.
ip link add node0 type veth peer name nobody
ip address add {address}/24 dev node0
ip link set node0 up
ip link set nobody up
ip route add default dev node0
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
echo up
read -r _ || true
"""


class MachineError(Exception):
    """A program of the machine did not do what it must; says which, and where its log is."""


@dataclass
class Program:
    """A process that stays: what it is called, and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def end_of_log(self, lines: int = 15) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Machine:
    """The machine; ``folder`` takes what is on its disk, and its logs. Needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.cgroup = f"/onenode-{os.getpid()}"
        self.programs: list[Program] = []
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self) -> None:
        """Make the namespaces; raises :class:`MachineError` where this machine does not let us."""
        self.logs.mkdir(parents=True)
        script = _INIT.format(
            in_memory=" ".join(_IN_MEMORY),
            on_disk=" ".join(_ON_DISK),
            disk=self.folder / "disk",
            settings=" ".join(f"{name}={value}" for name, value in _SETTINGS.items()),
            hostname=HOSTNAME,
            address=ADDRESS,
        )
        flags = ("--fork", "--kill-child", "--pid", "--net", "--mount", "--uts", "--ipc", "--mount-proc")
        self._init = subprocess.Popen(
            ["unshare", *flags, "bash", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.logs / "machine.log").open("wb"),
        )
        assert self._init.stdout is not None
        if self._init.stdout.readline() != b"up\n":
            raise MachineError(f"no namespaces: {(self.logs / 'machine.log').read_text().strip()}")
        self._pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text())
        self._make_cgroups()

    @property
    def running(self) -> bool:
        """Whether anything can still be run in it."""
        return self._init is not None and self._init.poll() is None

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """``command`` as it must be run from outside to work in the machine."""
        # Only a child is in the PID namespace. nsenter's own fork would stop itself whenever its child is stopped, and
        # nobody would let it go on; a shell just waits.
        wait = ("sh", "-c", '"$@"; exit $?', "sh")
        entered = ("nsenter", f"--target={self._pid}", "--all", "--no-fork", f"--wd={self.folder}", "--")
        return [*entered, *wait, *map(str, command)]

    def spawn(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> Program:
        """Start a program that stays; its output goes to a log of its own."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.inside(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        program = Program(name, process, log)
        self.programs.append(program)
        return program

    def run(
        self,
        command: Sequence[str | Path],
        *,
        stdin: bytes = b"",
        timeout: float = 600,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end; raises :class:`MachineError` when it fails and ``check`` is set."""
        inside, environment = self.inside(command), {**os.environ, **(env or {})}
        done = subprocess.run(inside, input=stdin, capture_output=True, timeout=timeout, env=environment)
        if check and done.returncode:
            said = (done.stdout[-2000:] + done.stderr[-2000:]).decode(errors="replace").strip()
            raise MachineError(f"{' '.join(map(str, command))} failed ({done.returncode}): {said}")
        return done

    def stop(self) -> None:
        """End everything in the machine and take its control groups away."""
        if self._init is None:
            return
        assert self._init.stdin is not None
        self._init.stdin.close()
        self._init.wait(timeout=600)
        for program in self.programs:
            program.process.wait(timeout=600)
        self._remove_cgroups()
        shutil.rmtree(self.folder / "disk", ignore_errors=True)

    def _hierarchies(self) -> list[Path]:
        if (_CGROUPS / "cgroup.controllers").exists():
            return [_CGROUPS]
        # A link (cpu -> cpu,cpuacct) would be the same hierarchy twice.
        return [each for each in _CGROUPS.iterdir() if each.is_dir() and not each.is_symlink()]

    def _make_cgroups(self) -> None:
        """Make the group below which the kubelet puts its own; it must be there in every hierarchy."""
        for hierarchy in self._hierarchies():
            group = hierarchy / self.cgroup[1:]
            group.mkdir()
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (group / file).exists() and not (hierarchy / "cgroup.controllers").exists():
                    (group / file).write_text((hierarchy / file).read_text())
            if hierarchy == _CGROUPS:
                controllers = (group / "cgroup.controllers").read_text().split()
                (group / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in controllers))

    def _remove_cgroups(self) -> None:
        deadline = time.monotonic() + 300
        for hierarchy in self._hierarchies():
            top = hierarchy / self.cgroup[1:]
            for folder, _, _ in os.walk(top, topdown=False):
                while True:
                    try:
                        Path(folder).rmdir()
                        break
                    except FileNotFoundError:
                        break
                    except OSError:
                        # Killed processes stay in their group until the kernel is done with them.
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.05)
