"""The examples in a ``tensorflow.serving.Input``, left as they are: serialized, as models that parse them take them.

Rules and texts: servables/tensorflow/util.cc (``InputToSerializedExampleTensor``).
"""

from __future__ import annotations

from typing import Any, Final

from ensconce.tfserving.refusal import Code, RequestError, invalid
from ensconce.tfserving.signatures import MAX_AXIS
from ensconce.tfserving.tensor import DEFAULT_LIMIT
from ensconce.tfserving.wire import MalformedError, records

__all__ = ["examples_of", "with_context"]

# Of Input, ExampleList and ExampleListWithContext (proto/tensorflow_serving/apis/input.proto).
_LIST: Final = 0x0A
_LIST_WITH_CONTEXT: Final = 0x12
_EXAMPLE: Final = 0x0A
_CONTEXT: Final = 0x12


def examples_of(given: Any, *, limit: int = DEFAULT_LIMIT) -> list[bytes]:
    """Serialized ``tf.Example`` messages, 1 to 4096 of them.

    Args:
        given: an ``Input``, or its bytes.
        limit: most bytes that they may take together.

    Raises:
        RequestError: INVALID_ARGUMENT, there are none, or too many; INTERNAL, these bytes are no ``Input``.
    """
    data = given if isinstance(given, bytes) else given.SerializeToString()
    try:
        # One member of a oneof: a second one, which no client writes, would have to be merged into it.
        found = records(data, (_LIST, _LIST_WITH_CONTEXT), 2)
        if len(found) > 1:
            raise MalformedError
        [(kind, content)] = found or [(_LIST, b"")]
        parts = records(content, (_EXAMPLE, _CONTEXT) if kind == _LIST_WITH_CONTEXT else (_EXAMPLE,), MAX_AXIS + 2)
    except MalformedError:
        raise RequestError(Code.INTERNAL, "Error parsing serialized input.") from None
    examples = [value for tag, value in parts if tag == _EXAMPLE]
    context = b"".join([value for tag, value in parts if tag == _CONTEXT])
    if not examples:
        raise invalid("Input is empty.")
    if len(parts) > MAX_AXIS + 1 or len(examples) > MAX_AXIS:
        raise invalid(f"Input has too many examples: at most {MAX_AXIS} are computed at once")
    return with_context(examples, context, limit=limit) if kind == _LIST_WITH_CONTEXT else examples


def with_context(examples: list[bytes], context: bytes, *, limit: int = DEFAULT_LIMIT) -> list[bytes]:
    """The examples, each with the context's features where it has none of its own: what comes last counts.

    Raises:
        RequestError: INVALID_ARGUMENT, together they take more than ``limit`` bytes.
    """
    if len(examples) * len(context) + sum(map(len, examples)) > limit:
        raise invalid(f"The examples with their context take more than {limit} bytes")
    return [context + example for example in examples]
