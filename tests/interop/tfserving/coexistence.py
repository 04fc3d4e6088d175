"""In one process with TensorFlow and tensorflow_serving: Ensconce's messages load, and the bytes are the same.

Argument: the folder that holds the package ``ensconce``. It prints JSON.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

sys.path.append(sys.argv[1])
from ensconce.tfserving.messages import PredictRequest
from ensconce.tfserving.tensor import from_proto, to_proto

checked = []
for value in (
    np.float32([[1.5, -2], [3, 4]]),
    np.float16([1, 2]),
    np.arange(6, dtype=np.int64).reshape(2, 3),
    np.uint8([1, 2]),
    np.array([True, False]),
    np.complex64([1 + 2j]),
    np.uint16([1, 65535]),
    np.array([b"a", b"bc"], dtype=object),
):
    ours = PredictRequest()
    ours.model_spec.name = "m"
    ours.inputs["x"].CopyFrom(to_proto(value))
    theirs = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    back = tf.make_ndarray(theirs.inputs["x"])
    assert back.dtype == value.dtype
    assert (back == value).all()
    theirs.inputs["x"].CopyFrom(tf.make_tensor_proto(value))
    again = from_proto(PredictRequest.FromString(theirs.SerializeToString()).inputs["x"])
    assert again.dtype == value.dtype
    assert (again == value).all()
    # The C++ side reads it, too: eager constants go through Tensor::FromProto.
    parsed = tf.io.parse_tensor(
        to_proto(value).SerializeToString(),
        tf.as_dtype(theirs.inputs["x"].dtype),
    )
    assert (parsed.numpy() == value).all()
    checked.append(str(value.dtype))

json.dump(checked, sys.stdout)
