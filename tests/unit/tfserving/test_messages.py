from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from ensconce.tfserving import messages
from ensconce.tfserving.descriptors import DESCRIPTOR_SET
from ensconce.tfserving.dtypes import DTYPES

ROOT = Path(__file__).parents[3]


def test_descriptors_are_what_the_proto_files_compile_to() -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is a development dependency")
    spec = importlib.util.spec_from_file_location("compile_protos", ROOT / "proto" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.compile_protos() == FileDescriptorSet.FromString(DESCRIPTOR_SET), "run python proto/compile.py"


def test_element_types_are_those_of_the_enum() -> None:
    enum = messages.POOL.FindEnumTypeByName("tensorflow.DataType")
    fields = messages.TensorProto.DESCRIPTOR.fields_by_name
    for dtype in DTYPES:
        assert enum.values_by_name[dtype.name].number == dtype.number
        assert dtype.field in fields


def test_coexists_with_other_definitions_of_the_same_files_and_messages() -> None:
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
name = "tensorflow/core/framework/tensor.proto"
clash = descriptor_pb2.FileDescriptorProto(name=name, package="tensorflow", syntax="proto3")
clash.message_type.add(name="TensorProto").field.add(name="other", number=1, type=9, label=1)
descriptor_pool.Default().Add(clash)
theirs = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("tensorflow.TensorProto"))
from ensconce.tfserving.messages import TensorProto
assert theirs(other="x").SerializeToString() == b"\\x0a\\x01x"
assert TensorProto(dtype=1).SerializeToString() == b"\\x08\\x01"
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_any_packs_as_the_original() -> None:
    response = messages.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(messages.SignatureDefMap())
    assert response.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    unpacked = messages.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(unpacked)
