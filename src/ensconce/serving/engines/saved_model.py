"""A SavedModel in a TensorFlow session, as TensorFlow Serving has it.

The steps, and their texts when they fail, are those of TensorFlow's loader (cc/saved_model/reader.cc, loader.cc,
loader_util.cc): the graph of exactly these tags, then its variables, then its initialisation op, both told where the
assets lie. One step more mends what current Keras breaks: ``tf.saved_model.save`` of its models writes a graph that
restores copies of the variables and computes with the originals, which nothing ever sets.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ensconce.errors import InputError
from ensconce.files import read_bounded
from ensconce.models.originals import set_originals
from ensconce.serving.engines import LoadError
from ensconce.tfserving.refusal import Code

__all__ = ["SAVED_MODEL", "SAVED_MODEL_TEXT", "LoadedGraph", "SessionOptions", "import_tensorflow", "load_saved_model"]

SAVED_MODEL: Final = "saved_model.pb"
SAVED_MODEL_TEXT: Final = "saved_model.pbtxt"
# protobuf reads no message that is larger.
_MAX_BYTES: Final = 2**31 - 1
_MAX_MESSAGE: Final = 600
_INIT_OP: Final = "__saved_model_init_op"
_INIT_COLLECTIONS: Final = ("saved_model_main_op", "legacy_init_op")


@dataclass(frozen=True)
class SessionOptions:
    """How a SavedModel is loaded and computed; each named as the flag of TensorFlow Serving that it is.

    Attributes:
        saved_model_tags: exactly the tags of the graph to load.
        intra_op_parallelism: most threads of one operation; TensorFlow's choice when 0.
        inter_op_parallelism: most operations at once; TensorFlow's choice when 0. The process has one pool of such
            threads: the first session of a process decides.
        mixed_precision: ``bfloat16`` computes in it where that loses little; the model's own types when empty.
    """

    saved_model_tags: tuple[str, ...] = ("serve",)
    intra_op_parallelism: int = 0
    inter_op_parallelism: int = 0
    mixed_precision: str = ""


@dataclass(frozen=True)
class LoadedGraph:
    """A session that is ready to compute, and the serialized ``SignatureDef``s of its graph, by name."""

    session: Any
    definitions: dict[str, bytes]


def import_tensorflow() -> Any:
    """TensorFlow, imported when it is first needed.

    Unless the environment says otherwise, it is told to log nothing: its messages can quote tensors.

    Raises:
        InputError: it is not installed, or this machine cannot run it.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            "engine.tensorflow",
            "TensorFlow is not installed",
            rule="SavedModels and TFLite models are computed by TensorFlow",
            remedy="pip install 'ensconce[tensorflow]', or convert the model: ensconce model import",
        )
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise InputError(
            "engine.tensorflow",
            f"TensorFlow cannot be imported: {error}",
            remedy="install one for this Python and this processor: pip install 'ensconce[tensorflow]'",
        ) from error


def load_saved_model(folder: Path, options: SessionOptions) -> LoadedGraph:
    """Load the graph with exactly the options' tags, its variables and its assets.

    What TensorFlow says of a model that it cannot load is passed on, shortened: the folder is a plain one.

    Raises:
        LoadError: ``engine.model``: there is no SavedModel, no graph of these tags, or TensorFlow cannot load it.
        InputError: ``engine.tensorflow``: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    meta_graph = _read(folder, frozenset(options.saved_model_tags))
    graph = tf.Graph()
    session = tf.compat.v1.Session(graph=graph, config=_config(tf, options))
    try:
        with graph.as_default():
            tf.graph_util.import_graph_def(meta_graph.graph_def, name="")
            assets = {asset.tensor_info.name: str(folder / "assets" / asset.filename) for asset in _assets(meta_graph)}
            _restore(tf, session, meta_graph.saver_def, folder, assets)
            for name in _init_ops(meta_graph):
                session.run(graph.as_graph_element(name), assets)
    except tf.errors.OpError as error:
        session.close()
        # A fresh error: TensorFlow's holds the whole graph.
        raise _unloadable(error.message).with_code(Code(error.error_code)) from None
    except (ValueError, KeyError, TypeError) as error:
        session.close()
        raise _unloadable(str(error)).with_code(Code.INVALID_ARGUMENT) from None
    signatures = meta_graph.signature_def
    return LoadedGraph(session, {name: signatures[name].SerializeToString() for name in sorted(signatures)})


def _read(folder: Path, tags: frozenset[str]) -> Any:
    """The ``MetaGraphDef`` with exactly these tags."""
    messages = importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    saved_model = messages.SavedModel()
    try:
        if (folder / SAVED_MODEL).is_file():
            saved_model.ParseFromString(read_bounded(folder / SAVED_MODEL, _MAX_BYTES))
        elif (folder / SAVED_MODEL_TEXT).is_file():
            text_format = importlib.import_module("google.protobuf.text_format")
            text_format.Parse(read_bounded(folder / SAVED_MODEL_TEXT, _MAX_BYTES), saved_model)
        else:
            raise LoadError(
                "engine.model",
                "Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
                f"{folder}. Check that the directory exists and that you have the right permissions for accessing it.",
            ).with_code(Code.NOT_FOUND)
    except InputError:  # among them LoadError
        raise
    except Exception as error:  # protobuf raises its own, which no module exports to all versions, and ValueError
        raise LoadError(
            "engine.model",
            f"Could not parse the SavedModel in {folder}",
            found=type(error).__name__,
            remedy="export the model again",
        ).with_code(Code.DATA_LOSS) from None
    for meta_graph in saved_model.meta_graphs:
        if frozenset(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    raise LoadError(
        "engine.model",
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}. To inspect available "
        "tag-sets in the SavedModel, please use the SavedModel CLI: `saved_model_cli`",
        found="; ".join(" ".join(graph.meta_info_def.tags) for graph in saved_model.meta_graphs)[:_MAX_MESSAGE],
    ).with_code(Code.NOT_FOUND)


def _config(tf: Any, options: SessionOptions) -> Any:
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=options.intra_op_parallelism,
        inter_op_parallelism_threads=options.inter_op_parallelism,
        allow_soft_placement=True,
    )
    if options.mixed_precision == "bfloat16":
        rewrite = config.graph_options.rewrite_options
        rewrite.auto_mixed_precision_onednn_bfloat16 = rewrite.ON
    return config


def _assets(meta_graph: Any) -> list[Any]:
    """The ``AssetFileDef``s; SavedModels of TensorFlow 1 hold them in a collection."""
    if meta_graph.asset_file_def:
        return list(meta_graph.asset_file_def)
    messages = importlib.import_module("tensorflow.core.protobuf.meta_graph_pb2")
    packed = meta_graph.collection_def["saved_model_assets"].any_list.value
    return [messages.AssetFileDef.FromString(each.value) for each in packed]


def _init_ops(meta_graph: Any) -> list[str]:
    """The op that fills tables and the like, if there is one: named by a signature, or by a collection."""
    signatures, collections = meta_graph.signature_def, meta_graph.collection_def
    if _INIT_OP in signatures:
        return [signatures[_INIT_OP].outputs[_INIT_OP].name]
    for key in _INIT_COLLECTIONS:
        if key in collections:
            names = list(collections[key].node_list.value)
            if len(names) != 1:
                raise ValueError(f"Expected exactly one main op in {key}. Found {len(names)}.")
            return names
    return []


def _restore(tf: Any, session: Any, saver: Any, folder: Path, assets: dict[str, str]) -> None:
    if saver.restore_op_name and (folder / "variables" / "variables.index").is_file():
        prefix = str(folder / "variables" / "variables")
        session.run(saver.restore_op_name, {saver.filename_tensor_name: prefix, **assets})
        set_originals(tf, session)


def _unloadable(message: str) -> LoadError:
    first = message.strip().splitlines()[0] if message.strip() else ""
    return LoadError(
        "engine.model",
        first[:_MAX_MESSAGE] or "TensorFlow cannot load the SavedModel",
        rule="a SavedModel with all its variables and assets, of operations that this TensorFlow has",
        remedy="export the model again, and try it with saved_model_cli",
    )
