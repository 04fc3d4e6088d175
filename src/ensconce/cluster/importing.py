"""Importing a model and sealing what became of it, in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ensconce.cluster.owner import OwnerFolder
from ensconce.errors import InputError
from ensconce.models.description import ModelDescription
from ensconce.models.importing.record import ImportRecord, Precision
from ensconce.models.importing.run import Progress, import_model
from ensconce.models.layout import Engine, check_name, check_version

__all__ = ["Wish", "import_and_seal"]


@dataclass(frozen=True)
class Wish:
    """How a model is to be imported; :func:`ensconce.models.importing.run.import_model` says what each means."""

    source: Path
    engine: Engine = "openvino"
    precision: Precision = "f32"
    samples: Path | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    tolerance: float | None = None

    def carry_out(self, target: Path, progress: Progress | None = None) -> ImportRecord:
        """Import into a new folder. Raises as :func:`import_model`."""
        return import_model(
            self.source,
            target,
            engine=self.engine,
            precision=self.precision,
            samples=self.samples,
            inputs=self.inputs,
            outputs=self.outputs,
            tolerance=self.tolerance,
            progress=progress,
        )


def import_and_seal(
    owner: OwnerFolder,
    wish: Wish,
    name: str,
    version: int,
    progress: Progress | None = None,
    sealing: Callable[[int], None] | None = None,
) -> tuple[ImportRecord, ModelDescription]:
    """Import a model into a folder that is removed again, and seal that.

    What can be refused before the long work is refused before it.

    Args:
        owner: her folder.
        wish: what to import, and how.
        name: the model, as the deployment lists it.
        version: its new version.
        progress: is told how the import goes.
        sealing: is told the number of further bytes that are sealed.

    Raises:
        InputError: ``model.*``, ``import.*``.
        RefusedError: ``import.tolerance``.
    """
    check_name(name)
    check_version(version)
    engines = {model.name: model.form for model in owner.deployment().models}
    if name not in engines:
        raise InputError(
            "model.name",
            f"{owner.deployment_file} lists no such model",
            found=name,
            rule=f"one of {', '.join(engines)}",
            remedy="list it under models:, or choose one of these",
        )
    if engines[name] != wish.engine:
        raise InputError(
            "model.engine",
            f"{owner.deployment_file} has {name} served by {engines[name]}",
            found=f"--engine {wish.engine}",
            remedy="choose that engine; or --output DIR, which seals nothing",
        )
    sealed = owner.bundle / "models" / name / str(version)
    if os.path.lexists(sealed):
        raise InputError(
            "model.exists",
            f"version {version} of {name} exists",
            found=str(sealed),
            rule="a sealed version never changes",
            remedy="import the model as its next version",
        )
    try:
        aside = Path(tempfile.mkdtemp(prefix=".import-", dir=owner.path))
    except OSError as error:
        raise InputError(
            "model.write", f"cannot write {owner.path}: {error.strerror}", remedy="check the folder and the free space"
        ) from error
    try:
        record = wish.carry_out(aside / "version", progress)
        return record, owner.seal_model(aside / "version", name, version, sealing)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
