"""What a model takes and gives: signatures, their file, and the checks of a request against them.

``signatures.json`` lies beside a converted model and maps the names that clients use to the model's own tensors. It is
sealed with the model. Texts of refusals are TensorFlow Serving's (servables/tensorflow/predict_util.cc) and
TensorFlow's (cc/saved_model/util.cc, core/framework/function.cc) wherever these have one.

``"precision": "bf16"`` beside ``signatures`` asks for arithmetic in bfloat16 rather than in ``f32``. Beyond inputs and
outputs, a signature in the file may have:

* ``"graph": "NAME"``: its graph is ``NAME.xml`` with ``NAME.bin``; ``model`` when absent. Signatures may share one.
* ``"examples": {"features": {"f": {"tensor", "dtype", "shape", "default"}}}``: clients send serialized ``tf.Example``
  in the only input, a DT_STRING; each feature ``f`` is parsed out of them and fed to the graph's ``tensor``. ``shape``
  is without the axis of the examples; ``default`` is a list of values, null (or absent) when examples without ``f`` are
  refused (:class:`ensconce.tfserving.examples.FeatureSpec`).
* on an output of DT_STRING, ``"labels": [...]``: ``tensor`` holds integers, which stand for these strings; other
  integers give ``UNK``, as TensorFlow's tables do. Or ``"constant": [...]``: no tensor is read, and each row of the
  batch gets this row of strings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ensconce.errors import InputError
from ensconce.strict import StrictModel
from ensconce.tfserving.dtypes import DType, dtype_named, dtype_of
from ensconce.tfserving.examples import FeatureSpec
from ensconce.tfserving.messages import SignatureDef
from ensconce.tfserving.refusal import Code, RequestError, invalid
from ensconce.tfserving.tensor import Array, shape_text

__all__ = [
    "DEFAULT_SIGNATURE",
    "MAX_AXIS",
    "PREDICT_METHOD",
    "Binding",
    "Signature",
    "TensorSpec",
    "find_signature",
    "parse_bindings",
    "parse_signatures",
]

DEFAULT_SIGNATURE: Final = "serving_default"
PREDICT_METHOD: Final = "tensorflow/serving/predict"
_MAX_BYTES: Final = 1024 * 1024
_FEATURE_TYPES: Final = ("DT_FLOAT", "DT_INT64", "DT_STRING")
_GRAPH_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"

MAX_AXIS: Final = 4096
"""Longest that a client may make an axis which the signature leaves open: a tensor may come in a few bytes (one value
that stands for all), and what the model makes of it can take a hundred times its memory."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: the model's own name for it, its element type, its shape (-1: any size; None: any rank)."""

    tensor: str
    dtype: DType
    shape: tuple[int, ...] | None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape fits."""
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(want in (-1, size) for want, size in zip(self.shape, shape, strict=True))
        )

    def longest_open_axis(self, shape: tuple[int, ...]) -> int:
        """The longest axis whose length the signature leaves to the client; 0 without one.

        In a shape that the signature does not foresee the client chose every axis.
        """
        if self.shape is None or len(self.shape) != len(shape):
            return max(shape, default=0)
        return max((size for want, size in zip(self.shape, shape, strict=True) if want != size), default=0)


@dataclass(frozen=True)
class Signature:
    """A way to call a model. ``inputs`` and ``outputs`` are in the order of their names.

    Attributes:
        defaults: values of inputs that a request may leave out.
        definition: the serialized ``SignatureDef`` that the signature was read from, if it was; metadata repeats it.
    """

    name: str
    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    defaults: Mapping[str, Array] = field(default_factory=dict)
    definition: bytes | None = None

    def complete(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """The inputs, and the defaults of those that were left out."""
        return {**self.defaults, **inputs} if self.defaults else inputs

    def check_names(self, names: Iterable[str]) -> None:
        """Refuse inputs that are not exactly the signature's, but for those that have a default.

        Raises:
            RequestError: INVALID_ARGUMENT.
        """
        sent, wanted = sorted(names), list(self.inputs)
        if sent == wanted:
            return
        if len(sent) > len(wanted) or (len(sent) < len(wanted) and not self.defaults):
            extra, missing = sorted(set(sent) - set(wanted)), sorted(set(wanted) - set(sent))
            raise invalid(
                f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{','.join(sent)}}}) != "
                f"len({{{','.join(wanted)}}}). Sent extra: {{{','.join(extra)}}}. "
                f"Missing but required: {{{','.join(missing)}}}."
            )
        for name in wanted:
            if name not in sent and name not in self.defaults:
                raise invalid(
                    f"Signature input alias: {name}(feed name: {self.inputs[name].tensor}) not found in request and no "
                    f"default value provided. Inputs expected to be in the request {{{','.join(sent)}}}, or default "
                    f"input alias set: {','.join(sorted(self.defaults))}"
                )

    def check_inputs(self, inputs: Mapping[str, Array], *, shapes: bool = True) -> None:
        """Refuse inputs whose names, element types or shapes are not the signature's.

        Args:
            inputs: one array for each input, defaults included.
            shapes: whether shapes must be the signature's. TensorFlow itself takes any that its operations take.

        Raises:
            RequestError: INVALID_ARGUMENT.
        """
        if inputs.keys() != self.inputs.keys():
            self.check_names(inputs)
        for index, (name, spec) in enumerate(self.inputs.items()):
            array = inputs[name]
            # Comparing numpy's types first costs a tenth of finding the type's entry.
            if array.dtype != spec.dtype.numpy and (dtype := dtype_of(array)) != spec.dtype:
                raise invalid(f"Expects arg[{index}] to be {spec.dtype.label} but {dtype.label} is provided")
            if shapes and not spec.accepts(array.shape):
                raise invalid(
                    f"Expects arg[{index}] ({name}) to have shape {shape_text(spec.shape or ())} "
                    f"but had shape {shape_text(array.shape)}"
                )
            if spec.longest_open_axis(array.shape) > MAX_AXIS:
                raise invalid(
                    f"Input {name} has shape {shape_text(array.shape)}, and at most {MAX_AXIS} are computed at once "
                    "along an axis that the signature leaves open"
                )

    def choose_outputs(self, output_filter: Iterable[str]) -> tuple[str, ...]:
        """The names of the outputs to compute: the filter's, or all when it is empty.

        Raises:
            RequestError: INVALID_ARGUMENT, an unknown name, or one twice.
        """
        chosen: list[str] = []
        for name in output_filter:
            if name not in self.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {name} "
                    f"Outputs expected to be in the set {{{','.join(self.outputs)}}}."
                )
            if name in chosen:
                raise invalid(f"duplicate output tensor alias: {name}")
            chosen.append(name)
        return tuple(chosen) or tuple(self.outputs)

    def to_proto(self) -> Any:
        """The signature as a ``SignatureDef``."""
        if self.definition is not None:
            return SignatureDef.FromString(self.definition)
        proto = SignatureDef(method_name=self.method_name)
        for specs, fields in ((self.inputs, proto.inputs), (self.outputs, proto.outputs)):
            for name, spec in specs.items():
                info = fields[name]
                info.name = spec.tensor
                info.dtype = spec.dtype.number
                if spec.shape is None:
                    info.tensor_shape.unknown_rank = True
                else:
                    info.tensor_shape.SetInParent()
                    for size in spec.shape:
                        info.tensor_shape.dim.add(size=size)
        return proto


@dataclass(frozen=True)
class Binding:
    """How a converted model computes a signature.

    Attributes:
        signature: what clients see.
        graph: stem of the graph's files.
        precision: of the arithmetic, ``f32`` or ``bf16``.
        features: what is parsed out of the serialized examples in the only input and fed in its place; None: inputs
            are fed as they are.
        labels: by output, the strings that its tensor's integers stand for.
        constants: by output, the row of strings that every row of the batch gets.
    """

    signature: Signature
    graph: str = "model"
    precision: Literal["f32", "bf16"] = "f32"
    features: Mapping[str, FeatureSpec] | None = None
    labels: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    constants: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of this name; the empty name means ``serving_default``.

    Raises:
        RequestError: FAILED_PRECONDITION, there is none.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signatures[name]


class _TensorEntry(StrictModel):
    tensor: str = Field(min_length=1)
    dtype: str
    shape: list[int] | None

    @field_validator("dtype")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            dtype_named(value)
        except KeyError:
            raise ValueError("no element type that can be served") from None
        return value

    @field_validator("shape")
    @classmethod
    def _sizes(cls, value: list[int] | None) -> list[int] | None:
        if value is not None and any(size < -1 for size in value):
            raise ValueError("a size is -1 (any) or more")
        return value

    def spec(self) -> TensorSpec:
        return TensorSpec(self.tensor, dtype_named(self.dtype), None if self.shape is None else tuple(self.shape))


class _OutputEntry(_TensorEntry):
    labels: list[str] | None = None
    constant: list[str] | None = None

    @model_validator(mode="after")
    def _strings(self) -> Self:
        if self.labels is not None and self.constant is not None:
            raise ValueError("an output has labels or is constant, not both")
        if self.dtype != "DT_STRING" and (self.labels is not None or self.constant is not None):
            raise ValueError("only an output of DT_STRING has labels or is constant")
        return self


class _FeatureEntry(StrictModel):
    tensor: str = Field(min_length=1)
    dtype: str
    shape: list[int]
    default: list[float | int | str] | None = None

    @model_validator(mode="after")
    def _parsable(self) -> Self:
        self.spec()
        return self

    def spec(self) -> FeatureSpec:
        if self.dtype not in _FEATURE_TYPES:
            raise ValueError(f"a feature is {', '.join(_FEATURE_TYPES)}")
        given = self.default
        values = None if given is None else tuple(each.encode() if isinstance(each, str) else each for each in given)
        return FeatureSpec(self.tensor, dtype_named(self.dtype), tuple(self.shape), values)


class _ExamplesEntry(StrictModel):
    features: dict[str, _FeatureEntry] = Field(min_length=1)


class _SignatureEntry(StrictModel):
    method_name: str
    inputs: dict[str, _TensorEntry] = Field(min_length=1)
    outputs: dict[str, _OutputEntry] = Field(min_length=1)
    graph: str = Field(default="model", pattern=_GRAPH_NAME)
    examples: _ExamplesEntry | None = None

    @model_validator(mode="after")
    def _examples_in_the_only_input(self) -> Self:
        if self.examples is not None and [entry.dtype for entry in self.inputs.values()] != ["DT_STRING"]:
            raise ValueError("a signature that parses examples has one input, of DT_STRING")
        return self

    def binding(self, name: str, precision: Literal["f32", "bf16"]) -> Binding:
        outputs = dict(sorted(self.outputs.items()))
        return Binding(
            Signature(
                name,
                self.method_name,
                {key: self.inputs[key].spec() for key in sorted(self.inputs)},
                {key: entry.spec() for key, entry in outputs.items()},
            ),
            self.graph,
            precision,
            None if self.examples is None else {key: each.spec() for key, each in self.examples.features.items()},
            {key: _encoded(entry.labels) for key, entry in outputs.items() if entry.labels is not None},
            {key: _encoded(entry.constant) for key, entry in outputs.items() if entry.constant is not None},
        )


def _encoded(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


class _SignatureFile(StrictModel):
    signatures: dict[str, _SignatureEntry] = Field(min_length=1)
    precision: Literal["f32", "bf16"] = "f32"


def parse_signatures(data: bytes) -> dict[str, Signature]:
    """The signatures in ``signatures.json``; raises what :func:`parse_bindings` does."""
    return {name: binding.signature for name, binding in parse_bindings(data).items()}


def parse_bindings(data: bytes) -> dict[str, Binding]:
    """Read ``signatures.json``.

    Raises:
        InputError: it is too large, not JSON, or has a field that is wrong, missing or unknown (named in ``found``).
    """
    remedy = "convert the model anew, or correct signatures.json before sealing"
    if len(data) > _MAX_BYTES:
        raise InputError(
            "engine.signatures", "signatures.json is too large", rule=f"at most {_MAX_BYTES} bytes", remedy=remedy
        )
    try:
        file = _SignatureFile.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            "engine.signatures", f"signatures.json is wrong: {where}: {first['msg']}", found=where, remedy=remedy
        ) from None
    return {name: entry.binding(name, file.precision) for name, entry in sorted(file.signatures.items())}
