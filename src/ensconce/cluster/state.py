"""Where a deployment keeps what its provisioning servers share: documents and log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ensconce.audit.folder import FolderLog
from ensconce.audit.storage import LogStorage
from ensconce.cluster.deployment import Deployment, FolderState, SqliteState
from ensconce.errors import InputError
from ensconce.state.folder import FolderStore
from ensconce.state.store import Store

if TYPE_CHECKING:
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.state.engine import Database

__all__ = ["State", "new_state", "open_state"]


class State(NamedTuple):
    """What servers share.

    Attributes:
        store: documents, such as the keystore and the policy in force.
        log: where the audit log is kept.
    """

    store: Store
    log: LogStorage


def open_state(owner: OwnerFolder) -> State:
    """The state that the owner's deployment file names; a database's connections last as long as it is used.

    Raises:
        InputError: the deployment file or the URL's file is wrong; ``state.*``: the database cannot be used, or the
            file of SQLite is not there (``state.missing``).
        UnreachableError: ``state.unreachable``.
    """
    deployment = owner.deployment()
    if isinstance(deployment.state, SqliteState):
        file = (owner.path / deployment.state.path).absolute()
        if not file.exists():  # SQLite would make an empty one, which hides what happened
            raise InputError(
                "state.missing",
                f"the database {file} is missing",
                rule="`ensconce init` alone makes it",
                remedy="check state.path in ensconce.yaml, or restore the file from a backup",
            )
    return _open(owner.path, deployment)[0]


@contextlib.contextmanager
def new_state(folder: Path, deployment: Deployment) -> Iterator[State]:
    """The state of an owner's folder that is being made, closed when the block ends: the folder is then renamed.

    Raises:
        InputError: as :func:`open_state`.
        UnreachableError: as :func:`open_state`.
    """
    state, database = _open(folder, deployment)
    try:
        yield state
    finally:
        if database is not None:
            database.close()


def _open(folder: Path, deployment: Deployment) -> tuple[State, Database | None]:
    entry = deployment.state
    if isinstance(entry, FolderState):
        return State(FolderStore(folder / "state"), FolderLog(folder / "audit")), None
    # SQLAlchemy takes longer to load than most commands take.
    from ensconce.audit.database import DatabaseLog
    from ensconce.state.database import DatabaseStore
    from ensconce.state.engine import Database, read_url

    if isinstance(entry, SqliteState):
        database = Database.open_sqlite((folder / entry.path).absolute())
    else:
        database = Database.open(read_url(folder / entry.url_file))
    return State(DatabaseStore(database), DatabaseLog(database)), database
