"""The targets, one module each; a module's ``TARGET`` is what there is to run.

They are imported one by one, because a fuzzer sees only what is imported after it is ready.
"""

from __future__ import annotations

import importlib
import pkgutil

from fuzz.target import Target

__all__ = ["load", "names"]


def names() -> list[str]:
    """Names of all targets."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Target:
    """The target of that name.

    Raises:
        ModuleNotFoundError: there is none.
    """
    target: Target = importlib.import_module(f"fuzz.targets.{name.replace('-', '_')}").TARGET
    return target
