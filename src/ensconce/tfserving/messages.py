"""The message classes, made at import from compiled descriptors in a descriptor pool of their own.

TensorFlow and ``tensorflow_serving`` register messages of the same names in the default pool of the process. With a
pool of our own, both can live in one process; the bytes on the wire are the same.

The classes are typed ``Any``: they come into being at run time. Their fields are in the files under ``proto/``.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from ensconce.tfserving.descriptors import DESCRIPTOR_SET

__all__ = [
    "MODEL_SERVICE",
    "POOL",
    "PREDICTION_SERVICE",
    "BatchingParameters",
    "ClassificationRequest",
    "ClassificationResponse",
    "Example",
    "Feature",
    "FloatList",
    "GetModelMetadataRequest",
    "GetModelMetadataResponse",
    "GetModelStatusRequest",
    "GetModelStatusResponse",
    "InferMetadataRequest",
    "InferMetadataResponse",
    "InferRequest",
    "InferResponse",
    "Input",
    "Int64List",
    "ModelConfig",
    "ModelServerConfig",
    "ModelSpec",
    "ModelVersionStatus",
    "MonitoringConfig",
    "MultiInferenceRequest",
    "MultiInferenceResponse",
    "PredictRequest",
    "PredictResponse",
    "PredictionLog",
    "ProfileRequest",
    "ProfileResponse",
    "QuoteRequest",
    "QuoteResponse",
    "RegressionRequest",
    "RegressionResponse",
    "ReloadConfigRequest",
    "ReloadConfigResponse",
    "SSLConfig",
    "SealingKeyRequest",
    "SealingKeyResponse",
    "SignatureDef",
    "SignatureDefMap",
    "TensorProto",
    "UnreadEntries",
    "UnreadExample",
    "UnreadExamplesRequest",
    "UnreadMultiInferenceRequest",
]

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTOR_SET).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL: Final = _load()


def _message(name: str) -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(name))


TensorProto = _message("tensorflow.TensorProto")
SignatureDef = _message("tensorflow.SignatureDef")
Example = _message("tensorflow.Example")
Feature = _message("tensorflow.Feature")
FloatList = _message("tensorflow.FloatList")
Int64List = _message("tensorflow.Int64List")
ModelSpec = _message("tensorflow.serving.ModelSpec")
PredictRequest = _message("tensorflow.serving.PredictRequest")
PredictResponse = _message("tensorflow.serving.PredictResponse")
SignatureDefMap = _message("tensorflow.serving.SignatureDefMap")
GetModelMetadataRequest = _message("tensorflow.serving.GetModelMetadataRequest")
GetModelMetadataResponse = _message("tensorflow.serving.GetModelMetadataResponse")
ModelVersionStatus = _message("tensorflow.serving.ModelVersionStatus")
GetModelStatusRequest = _message("tensorflow.serving.GetModelStatusRequest")
GetModelStatusResponse = _message("tensorflow.serving.GetModelStatusResponse")
Input = _message("tensorflow.serving.Input")
ClassificationRequest = _message("tensorflow.serving.ClassificationRequest")
ClassificationResponse = _message("tensorflow.serving.ClassificationResponse")
RegressionRequest = _message("tensorflow.serving.RegressionRequest")
RegressionResponse = _message("tensorflow.serving.RegressionResponse")
MultiInferenceRequest = _message("tensorflow.serving.MultiInferenceRequest")
MultiInferenceResponse = _message("tensorflow.serving.MultiInferenceResponse")
ReloadConfigRequest = _message("tensorflow.serving.ReloadConfigRequest")
ReloadConfigResponse = _message("tensorflow.serving.ReloadConfigResponse")
PredictionLog = _message("tensorflow.serving.PredictionLog")
ModelServerConfig = _message("tensorflow.serving.ModelServerConfig")
ModelConfig = _message("tensorflow.serving.ModelConfig")
MonitoringConfig = _message("tensorflow.serving.MonitoringConfig")
SSLConfig = _message("tensorflow.serving.SSLConfig")
BatchingParameters = _message("tensorflow.serving.BatchingParameters")
# The same bytes, read less far (proto/ensconce/examples.proto).
UnreadExample = _message("ensconce.UnreadExample")
UnreadEntries = _message("ensconce.UnreadEntries")
UnreadExamplesRequest = _message("ensconce.UnreadExamplesRequest")
UnreadMultiInferenceRequest = _message("ensconce.UnreadMultiInferenceRequest")
QuoteRequest = _message("ensconce.QuoteRequest")
QuoteResponse = _message("ensconce.QuoteResponse")
SealingKeyRequest = _message("ensconce.SealingKeyRequest")
SealingKeyResponse = _message("ensconce.SealingKeyResponse")
ProfileRequest = _message("tensorflow.ProfileRequest")
ProfileResponse = _message("tensorflow.ProfileResponse")
# Of the Open Inference Protocol (proto/inference): asked of others' servers, never answered.
InferMetadataRequest = _message("inference.ModelMetadataRequest")
InferMetadataResponse = _message("inference.ModelMetadataResponse")
InferRequest = _message("inference.ModelInferRequest")
InferResponse = _message("inference.ModelInferResponse")
