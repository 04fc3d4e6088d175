from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Sessions = Callable[..., Path]


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow, where it is installed; ``make test-tensorflow`` runs these tests where it is."""
    return pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-tensorflow")


@pytest.fixture
def save_graph(tf: Any, tmp_path: Path) -> Sessions:
    """Saves a graph as TensorFlow 1 does; ``build`` gives signatures as (inputs, outputs, method)."""

    def save(
        build: Callable[[], dict[str, tuple[dict[str, Any], dict[str, Any], str]]],
        *,
        tags: tuple[str, ...] = ("serve",),
        as_text: bool = False,
        **options: Any,
    ) -> Path:
        v1 = tf.compat.v1
        folder = tmp_path / "1"
        with tf.Graph().as_default(), v1.Session() as session:
            signatures = {
                name: v1.saved_model.build_signature_def(
                    {key: v1.saved_model.build_tensor_info(each) for key, each in inputs.items()},
                    {key: v1.saved_model.build_tensor_info(each) for key, each in outputs.items()},
                    method,
                )
                for name, (inputs, outputs, method) in build().items()
            }
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            builder = v1.saved_model.Builder(str(folder))
            made = {key: option() for key, option in options.items()}
            builder.add_meta_graph_and_variables(session, list(tags), signatures, **made)
            builder.save(as_text)
        return folder

    return save


@pytest.fixture
def save_module(tf: Any, tmp_path: Path) -> Callable[..., Path]:
    """Saves functions of named tensors as TensorFlow 2 does: ``name=(function, specs)``."""

    def save(module: Any = None, **functions: tuple[Callable[..., Any], dict[str, Any]]) -> Path:
        signatures = {
            name: tf.function(function).get_concrete_function(
                **{key: tf.TensorSpec(spec.shape, spec.dtype, key) for key, spec in specs.items()}
            )
            for name, (function, specs) in functions.items()
        }
        folder = tmp_path / "1"
        tf.saved_model.save(module or tf.Module(), str(folder), signatures=signatures)
        return folder

    return save
