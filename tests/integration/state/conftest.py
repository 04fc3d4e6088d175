"""A PostgreSQL server of the tests' own: Debian's binaries, a folder that is thrown away, nobody else's port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PASSWORD = "correct horse"


class Cluster:
    """A PostgreSQL server on a socket in ``folder``; the user ``ensconce`` may do everything."""

    def __init__(self, binaries: Path, folder: Path, user: str | None) -> None:
        self.folder = folder
        self._binaries = binaries
        self._user = {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        os.chown(secret, *self._owner())
        options = ["--no-sync", "--no-locale", "-E", "UTF8", "-A", "scram-sha-256", "-U", "ensconce"]
        self._run("initdb", *options, f"--pwfile={secret}", "-D", str(self.folder / "data"))

    def start(self) -> None:
        arguments = {"unix_socket_directories": str(self.folder), "listen_addresses": "", "fsync": "off"}
        options = [part for name, value in arguments.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", str(self.folder / "data"), *options],
                stdout=output,
                stderr=output,
                cwd=self.folder,
                **self._user,
            )
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT closes all connections in order; SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://ensconce:{PASSWORD.replace(' ', '%20')}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        import psycopg

        name = f"d{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self._dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]  # a name of our own
        return name

    def execute(self, database: str, statement: str, *values: object) -> list[tuple[object, ...]]:
        import psycopg

        with psycopg.connect(self._dsn(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)  # type: ignore[call-overload]  # tests' own text
            return cursor.fetchall() if cursor.description else []

    def _dsn(self, database: str = "postgres") -> str:
        return f"host={self.folder} user=ensconce password='{PASSWORD}' dbname={database}"

    def _owner(self) -> tuple[int, int]:
        entry = pwd.getpwnam(str(self._user["user"])) if self._user else pwd.getpwuid(os.getuid())
        return entry.pw_uid, entry.pw_gid

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments], capture_output=True, text=True, cwd=self.folder, **self._user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _wait_until_ready(self) -> None:
        import psycopg

        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._dsn()).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "output").read_text()
                time.sleep(0.02)
            else:
                return


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("psycopg", reason="the driver for PostgreSQL (psycopg) is not installed")
    found = shutil.which("initdb")
    binaries = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries or not (binaries[-1] / "initdb").exists():
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    user = None
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next(name for name in ("postgres", "nobody") if name in names)
    # Not below pytest's folder: only root may pass through that.
    folder = Path(tempfile.mkdtemp(prefix="ensconce-pg-", dir="/tmp"))
    cluster = Cluster(binaries[-1], folder, user)
    try:
        os.chown(folder, *cluster._owner())
        cluster.make()
        cluster.start()
        yield cluster
    finally:
        with contextlib.suppress(ProcessLookupError):
            cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(cluster: Cluster) -> str:
    """The name of a new database."""
    return cluster.new_database()


@pytest.fixture(scope="session")
def clock() -> Callable[[], int]:
    return lambda: 1_769_860_800
