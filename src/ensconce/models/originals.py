"""What loading a SavedModel of current Keras lacks: it restores copies of variables, and computes with others."""

from __future__ import annotations

from typing import Any

__all__ = ["set_originals"]


def set_originals(tf: Any, session: Any) -> None:
    """Give variables that no checkpoint sets the value of the copy that it does set, where the graph tells which.

    The graph copies each original with an assignment that reads it: ``copy <- read(original)``. That was for the
    moment of saving; run backwards, it is what loading lacks.

    Args:
        tf: the module ``tensorflow``.
        session: of TensorFlow 1, its variables restored, its graph the default one.
    """
    pairs = []
    for assign in session.graph.get_operations():
        if assign.type == "AssignVariableOp":
            copy, value = assign.inputs
            if value.op.type == "ReadVariableOp" and {copy.op.type, value.op.inputs[0].op.type} == {"VarHandleOp"}:
                pairs.append((copy, value.op.inputs[0], value.dtype))
    if not pairs:
        return
    known = session.run(
        [[tf.raw_ops.VarIsInitializedOp(resource=handle) for handle in (copy, original)] for copy, original, _ in pairs]
    )
    for (copy, original, dtype), (copy_known, original_known) in zip(pairs, known, strict=True):
        if copy_known and not original_known:
            value = tf.raw_ops.ReadVariableOp(resource=copy, dtype=dtype)
            session.run(tf.raw_ops.AssignVariableOp(resource=original, value=value))
