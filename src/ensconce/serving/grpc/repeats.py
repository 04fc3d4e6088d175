"""Predict requests like earlier ones: read by comparing bytes, and planned as those were."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from ensconce.serving.answers import Prediction
from ensconce.serving.batching.plans import Plan
from ensconce.serving.batching.scheduler import Scheduler
from ensconce.serving.grpc.call import Message
from ensconce.serving.manager import LoadedServable, ModelManager
from ensconce.tfserving.pattern import Pattern, pattern_of
from ensconce.tfserving.refusal import RequestError
from ensconce.tfserving.signatures import Signature

__all__ = ["Repeats", "Spec", "spec_in"]

_MOST_SIZES: Final = 256
_MOST_OF_A_SIZE: Final = 4
Spec = tuple[str, int | None, str | None]
"""A model's name, and the version or the label that is asked for."""


def spec_in(request: Any) -> Spec:
    """What a ``PredictRequest`` that has a ``ModelSpec`` asks."""
    spec = request.model_spec
    return (
        spec.name,
        spec.version.value if spec.HasField("version") else None,
        spec.version_label if spec.HasField("version_label") else None,
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What was asked, by whom it was answered, and how. It does not keep a model from being unloaded."""

    pattern: Pattern
    spec: Spec
    loaded: weakref.ref[LoadedServable]
    signature: Signature
    plan: Plan
    output_filter: tuple[str, ...]


class Repeats:
    """The last requests of each size that differ in more than values."""

    def __init__(self, manager: ModelManager, scheduler: Scheduler) -> None:
        """Know none."""
        self._manager = manager
        self._scheduler = scheduler
        self._by_size: dict[int, deque[_Known]] = {}

    def find(self, data: Message) -> tuple[Prediction, Plan] | None:
        """What a message asks, and the plan for that, if one like it is known, and would be answered alike."""
        for known in self._by_size.get(len(data), ()):
            inputs = known.pattern.inputs(data)
            if inputs is None:
                continue
            try:
                loaded = self._manager.resolve(*known.spec)
            except RequestError:
                return None
            if loaded is not known.loaded() or not known.plan.holds:
                self._by_size[len(data)].remove(known)
                return None
            return Prediction(loaded, known.signature, inputs, known.output_filter), known.plan
        return None

    def learn(self, data: Message, spec: Spec, asked: Prediction) -> None:
        """Know requests like this one, which has been answered, from now on, if they can be told by their bytes.

        Args:
            data: the message.
            spec: whom it asks.
            asked: what has been read of it.
        """
        if asked.inputs.keys() != asked.signature.inputs.keys():
            return  # some have defaults
        if any(known.pattern.inputs(data) is not None for known in self._by_size.get(len(data), ())):
            return  # it was not looked for, or another that came with it has been here first
        pattern = pattern_of(data, asked.inputs)
        if pattern is None:
            return
        plan = self._scheduler.plan(asked.loaded, asked.signature, asked.inputs, asked.output_filter)
        if len(self._by_size) >= _MOST_SIZES and len(data) not in self._by_size:
            self._by_size.clear()
        known = self._by_size.setdefault(len(data), deque(maxlen=_MOST_OF_A_SIZE))
        known.append(_Known(pattern, spec, weakref.ref(asked.loaded), asked.signature, plan, asked.output_filter))
