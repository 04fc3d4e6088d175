"""``ensconce model import`` and ``ensconce model fetch``: models as others publish them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ensconce.cli.output import print_json, remark, say, updated_bar, with_times
from ensconce.cli.owner import Owner
from ensconce.servables import MAX_VERSION

if TYPE_CHECKING:
    from ensconce.models.importing.record import ImportRecord
    from ensconce.models.importing.run import Progress as Told

__all__ = ["fetch_model", "import_model"]

_HERE = Path()
_KINDS = {
    "saved-model": "a SavedModel",
    "frozen-graph": "a frozen graph",
    "tflite": "a TensorFlow Lite model",
    "onnx": "an ONNX model",
}


def import_model(
    source: Annotated[Path, typer.Argument(help="A SavedModel's folder; a .pb, .tflite or .onnx file.")],
    name: Annotated[str, typer.Option("--name", help="The model's name, as ensconce.yaml lists it.")],
    version: Annotated[int, typer.Option("--version", min=1, max=MAX_VERSION, help="The version's number.")],
    engine: Annotated[
        Literal["openvino", "tensorflow"],
        typer.Option(help="Convert for OpenVINO, or take a SavedModel as it is for TensorFlow."),
    ] = "openvino",
    precision: Annotated[
        Literal["f32", "bf16", "int8"], typer.Option(help="Of the arithmetic; int8 needs --samples.")
    ] = "f32",
    samples: Annotated[
        Path | None,
        typer.Option(help="What to compare on, and calibrate int8 with: .npz with an array for each input, or .npy."),
    ] = None,
    inputs: Annotated[str, typer.Option(help="Of a frozen graph: what to feed, separated by commas.")] = "",
    outputs: Annotated[str, typer.Option(help="Of a frozen graph: what to compute, separated by commas.")] = "",
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest difference from the original to accept, relative to the output's largest magnitude. "
            "By default 0.001 for f32, 0.05 for bf16, 0.2 for int8.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Make this folder and seal nothing; `ensconce model seal` takes it.")
    ] = None,
    owner: Owner = _HERE,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Convert a model, compare it with its original, and seal it as one version.

    The original is computed by its own runtime where that is installed (a SavedModel needs TensorFlow). Without
    --samples both are asked 32 random samples, from a fixed seed.

    Examples:

      ensconce model import resnet50.pb --inputs input --outputs predict --name resnet50 --version 1

      ensconce model import exported/ --name digits --version 2 --precision int8 --samples images.npz
    """
    from ensconce.cluster.importing import Wish, import_and_seal
    from ensconce.cluster.owner import OwnerFolder
    from ensconce.models.layout import check_name

    wish = Wish(source, engine, precision, samples, _list(inputs), _list(outputs), tolerance)
    check_name(name)
    with _progress(f"{name}/{version}") as told:
        if output is not None:
            record, description = wish.carry_out(output, told), None
        else:
            record, description = import_and_seal(OwnerFolder.open(owner), wish, name, version, told)
    if json:
        sealed = None if description is None else with_times(description.to_json_object(), "created")
        print_json({"import": record.model_dump(mode="json"), "sealed": sealed})
        return
    _tell(record, given=samples is not None)
    if description is not None:
        say(f"sealed {name}/{version} under key {description.key_id}")
    else:
        say(f"made {output}; seal it with `ensconce model seal {output} --name {name} --version {version}`")


def fetch_model(
    model: Annotated[str, typer.Argument(help="Which model: resnet50.")],
    url: Annotated[str | None, typer.Option(help="Where to get it, if not from its publisher.")] = None,
    sha256: Annotated[
        str | None,
        typer.Option(help="SHA-256 that the file must have, hexadecimal; needed where the publisher names none."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The file to make; by default of the publisher's name.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Download a published model, and keep it only if its SHA-256 is the expected one.

    resnet50 is the ResNet-50 of Gramine's TensorFlow Serving tutorial. Its publisher names no hash, so that --sha256 is
    needed: from somebody whom you trust, or of a copy that you have examined.

    Examples:

      ensconce model fetch resnet50 --sha256 HEX
    """
    from ensconce.models.fetch import fetch, published

    known = published(model)
    target = output if output is not None else Path(known.file_name)
    with updated_bar(f"fetching {target.name}", None) as update:
        size = fetch(
            url or known.url,
            target,
            sha256 or known.sha256,
            progress=lambda done, total: update(completed=done, total=total),
        )
    if json:
        print_json({"file": str(target), "size": size, "sha256": (sha256 or known.sha256 or "").lower()})
        return
    say(f"fetched {target}: {size} bytes; import it with --inputs {known.inputs} --outputs {known.outputs}")


def _list(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Told]:
    with updated_bar(f"importing {title}", None) as update:
        yield lambda stage, done, of: update(description=f"{stage} {title}", completed=done, total=of or None)


def _tell(record: ImportRecord, given: bool) -> None:
    say(f"imported {_KINDS[record.kind]} of SHA-256 {record.source_sha256} for {record.engine}, {record.precision}")
    agreement = record.agreement
    if agreement is None:
        say("taken as it is: nothing was converted, nothing compared")
        return
    made_up = "random samples (seed 0)" if agreement.random else "samples"
    if agreement.random and given:
        made_up = "samples or more of each signature, random ones (seed 0) where FILE has none"
    say(f"compared with {agreement.original} on {agreement.samples} {made_up}:")
    for each in record.outputs:
        top1 = "" if each.top1 is None else f"  top-1 agreement {each.top1:.4f}"
        apart = f"largest difference {each.max_abs:.3g}, relative {each.max_rel:.3g}{top1}"
        say(f"  {each.signature}: {each.output}  {apart}")
    if agreement.random:
        remark("random samples say little of top-1 agreement; give --samples FILE for that")
    if agreement.original.startswith("OpenVINO"):
        remark(
            "the model's own runtime is not installed: this compares the conversion with what OpenVINO reads, and not "
            "that reading with the original"
        )
