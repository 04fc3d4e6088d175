"""A database that servers share: SQLite on one machine, PostgreSQL between machines; its tables and transactions.

SQLAlchemy Core speaks to both. Every failure leaves here as one of ours, without URL or parameters in it: a URL may
hold a password.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.files import read_bounded

__all__ = ["DOCUMENTS", "LOG_HEAD", "LOG_LINES", "Database", "read_url"]

_VERSION = 1
_BUSY_S = 30
_MAX_URL = 4096
# Beyond these the other end counts as dead, in seconds; PostgreSQL's options are in milliseconds.
_CONNECT_S = 10
_OPTIONS = (
    ("statement_timeout", "30000"),
    ("lock_timeout", "20000"),
    ("idle_in_transaction_session_timeout", "60000"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
)
_SCHEMA_LOCK = 0x656E73636F6E6300

_METADATA = sa.MetaData()
_SCHEMA = sa.Table("ensconce_schema", _METADATA, sa.Column("version", sa.Integer, nullable=False))
DOCUMENTS = sa.Table(
    "ensconce_documents",
    _METADATA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""Documents by name."""
LOG_LINES = sa.Table(
    "ensconce_log",
    _METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.LargeBinary, nullable=False),
)
"""The log's lines by the number of their entry."""
LOG_HEAD = sa.Table(
    "ensconce_log_head",
    _METADATA,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    sa.Column("head", sa.LargeBinary, nullable=False),
)
"""The log's head: one row."""


class Database:
    """One deployment's tables; make one with ``open``. Threads may share it, processes each open their own."""

    def __init__(self, engine: Engine, where: str) -> None:
        """For ``open``."""
        self._engine = engine
        self._where = where

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect, and make the tables where there are none.

        Args:
            url: ``sqlite:///PATH`` (absolute: four slashes; the file is made with mode 0600) or
                ``postgresql+psycopg://USER:PASSWORD@HOST/DATABASE?PARAMETERS``, whose parameters are libpq's. Towards
                another machine ``sslmode`` is ``verify-full`` unless it is given.

        Raises:
            InputError: ``state.url``, ``state.open``, ``state.driver`` (psycopg is not installed), ``state.version``.
            UnreachableError: ``state.unreachable``.
        """
        return cls._open(_parse_url(url))

    @classmethod
    def open_sqlite(cls, path: Path) -> Database:
        """As :meth:`open`, for a SQLite file at an absolute path, whatever characters it has."""
        return cls._open(URL.create("sqlite", database=str(path)))

    @classmethod
    def _open(cls, parsed: URL) -> Database:
        where = parsed.render_as_string(hide_password=True).partition("?")[0]
        sqlite = parsed.get_backend_name() == "sqlite"
        engine = _sqlite_engine(parsed) if sqlite else _postgresql_engine(parsed)
        database = cls(engine, where)
        try:
            database._make_tables()
        except BaseException:
            database.close()
            raise
        return database

    @property
    def sqlite_file(self) -> Path | None:
        """The file, None for PostgreSQL."""
        return Path(str(self._engine.url.database)) if self._engine.dialect.name == "sqlite" else None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees the database as it is at its first statement, whatever others write meanwhile.

        Raises:
            UnreachableError: ``state.unreachable``.
            IntegrityError: ``state.damaged``: SQLite says that the file is.
        """
        isolation = {} if self.sqlite_file else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._mapped(), self._engine.connect().execution_options(**isolation) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, lock: int = 0) -> Iterator[Connection]:
        """A transaction that is durable when the block has ended well, and never was when it has not.

        Args:
            lock: what to hold until then, alone; SQLite always holds everything.

        Raises:
            InputError: ``state.write``: the disk is full, or the database may not be written.
            UnreachableError: ``state.unreachable``: also when others held the lock for too long.
            IntegrityError: ``state.damaged``.
        """
        with (
            self._mapped(),
            self._engine.connect().execution_options(ensconce_writes=True) as connection,
            connection.begin(),
        ):
            if lock and not self.sqlite_file:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock)))
            yield connection

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection of PostgreSQL where each statement is its own transaction; for locks that outlast one."""
        autocommit = {"isolation_level": "AUTOCOMMIT"}
        with self._mapped(), self._engine.connect().execution_options(**autocommit) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._engine.dispose()

    def __str__(self) -> str:
        return self._where

    def _make_tables(self) -> None:
        with self.writing(_SCHEMA_LOCK) as connection:
            if not sa.inspect(connection).has_table(_SCHEMA.name):
                _METADATA.create_all(connection)
                connection.execute(_SCHEMA.insert().values(version=_VERSION))
            versions = connection.scalars(sa.select(_SCHEMA.c.version)).all()
        if versions != [_VERSION]:
            raise InputError(
                "state.version",
                f"the tables in {self} are of another version of ensconce",
                found=", ".join(map(str, versions))[:100],
                rule=f"version {_VERSION}",
                remedy="use the version of ensconce that made them, or another database",
            )

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except EnsconceError:
            raise
        except DBAPIError as error:
            raise _as_ours(error, self._where) from None  # the cause may quote the URL
        except SQLAlchemyError as error:
            raise UnreachableError(
                "state.unreachable", f"cannot use the database {self}", found=type(error).__name__, remedy=_REMEDY
            ) from None


def read_url(path: Path) -> str:
    """The URL in a file that only its owner may read, because it may hold a password.

    Raises:
        InputError: ``file.read``, ``file.size``; ``state.url_file``: others may read it, or it is no line of text.
    """
    data = read_bounded(path, _MAX_URL)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise InputError(
            "state.url_file",
            f"others may read {path}, and it may hold a password",
            found=f"mode {mode:04o}",
            rule="mode 0600",
            remedy=f"chmod 600 {path}",
        )
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(text.split()) != 1:
        raise InputError(
            "state.url_file",
            f"{path} does not hold a URL",
            rule="one line: the database's URL",
            remedy="write postgresql+psycopg://USER:PASSWORD@HOST/DATABASE into it",
        )
    return text


_REMEDY = "check that the database runs and that the deployment file names it; then try again"


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise InputError(
            "state.url",
            "this is no URL of a database that ensconce can use",
            found=None if parsed is None else ascii(parsed.drivername)[:40],
            rule="sqlite:////absolute/path or postgresql+psycopg://user:password@host/database",
            remedy="correct the URL that the deployment file names",
        )
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Switch to WAL. Unlike other statements, this one does not wait for another process that does so just now."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "")
    if not url.database or not path.is_absolute() or url.query:
        raise InputError(
            "state.url",
            "SQLite needs an absolute path, and nothing else",
            rule="sqlite:////PATH",
            remedy="correct the URL; a relative path belongs under state.path of the deployment file",
        )
    try:
        # SQLite gives its journal the permissions of the file, so the file must exist with the right ones. One that
        # exists is left alone: closing it would drop the locks of this process's other connections to it (POSIX), and
        # whoever closes the database next would delete the journal that they write to.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise InputError(
                "state.open", f"cannot open {path}: it is not a file", remedy="name the database's file itself"
            ) from None
    except OSError as error:
        raise InputError(
            "state.open", f"cannot open {path}: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": _BUSY_S})

    @event.listens_for(engine, "connect")
    def connect(connection: object, _record: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]  # transactions are begun below
        cursor = connection.cursor()  # type: ignore[attr-defined]
        # FULL: without it a commit in WAL mode does not survive a power cut (sqlite.org/pragma.html).
        for pragma in ("synchronous=FULL", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {pragma}")
        _write_ahead(cursor)
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that reads first and then cannot write would fail where it could have waited.
        writes = connection.get_execution_options().get("ensconce_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise InputError(
            "state.driver",
            "the driver for PostgreSQL is not installed",
            remedy="pip install 'ensconce[postgresql]'",
        ) from None
    options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS)
    given = url.query.get("options")
    arguments: dict[str, object] = {
        "connect_timeout": _CONNECT_S,
        "options": f"{given} {options}" if isinstance(given, str) else options,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "ensconce",
        "prepare_threshold": None,
    }
    if "sslmode" not in url.query and not _is_local(url):
        arguments["sslmode"] = "verify-full"
    # Asked before each use: a server that was restarted has closed the pool's connections.
    engine = sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=arguments)

    @event.listens_for(engine, "connect")
    def connect(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        # A server may have been told to acknowledge before it has written; not to us.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
        cursor.close()
        connection.commit()  # type: ignore[attr-defined]

    return engine


def _is_local(url: URL) -> bool:
    def named(parameter: str, variable: str) -> tuple[str, ...]:
        given = url.query.get(parameter, ())
        # What the URL leaves out, libpq takes from its environment (PostgreSQL's manual, 32.15).
        return tuple(filter(None, (given,) if isinstance(given, str) else given)) or (os.environ.get(variable, ""),)

    # A service file may name another host, and an address goes before a host.
    if "service" in url.query or os.environ.get("PGSERVICE"):
        return False
    hosts = named("host", "" if url.host else "PGHOST") + named("hostaddr", "PGHOSTADDR") + (url.host or "",)
    return all(host.startswith("/") or host in ("", "localhost", "127.0.0.1", "::1") for host in hosts)


def _as_ours(error: DBAPIError, where: str) -> EnsconceError:
    """SQLite is told by its result code, PostgreSQL by its SQLSTATE; what is neither counts as out of reach."""
    said = " ".join(str(error.orig).split())[:300]
    sqlite = getattr(error.orig, "sqlite_errorname", None) or ""
    state = getattr(error.orig, "sqlstate", None) or ""
    if sqlite.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return IntegrityError("state.damaged", f"{where} is damaged", found=said, remedy="restore it from a backup")
    if state.startswith("53100") or sqlite.startswith(
        ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")
    ):
        return InputError(
            "state.write", f"cannot write {where}", found=said, remedy="free some space or check the permissions"
        )
    if state.startswith(("28", "3D", "3F", "42")) or sqlite.startswith(("SQLITE_ERROR", "SQLITE_PERM", "SQLITE_AUTH")):
        return InputError(
            "state.open", f"cannot use {where}", found=said, remedy="check the URL, the user and what it may do"
        )
    return UnreachableError("state.unreachable", f"cannot reach the database {where}", found=said, remedy=_REMEDY)
