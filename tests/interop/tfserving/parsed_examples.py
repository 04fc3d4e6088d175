"""What TensorFlow's ``parse_example`` gives for the cases on standard input, as JSON: arrays, or its refusal.

A case: the examples in base64, and for each feature its type, its shape and its default.
"""

import base64
import json
import sys

import tensorflow as tf

TYPES = {"DT_FLOAT": tf.float32, "DT_INT64": tf.int64, "DT_STRING": tf.string}


def feature(dtype, shape, default):
    dtype = TYPES[dtype]
    if default is not None and dtype == tf.string:
        default = [value.encode("latin-1") for value in default]
    if shape[:1] != [-1]:
        if default is not None:
            default = tf.reshape(tf.constant(default, dtype), shape)
        return tf.io.FixedLenFeature(shape, dtype, default)
    default = default[0] if default else None
    return tf.io.FixedLenSequenceFeature(shape[1:], dtype, allow_missing=True, default_value=default)


def listed(values):
    if isinstance(values, list):
        return [listed(value) for value in values]
    return values.decode("latin-1") if isinstance(values, bytes) else values


answers = []
for case in json.load(sys.stdin):
    examples = tf.constant([base64.b64decode(each) for each in case["examples"]], tf.string)
    features = {name: feature(*spec) for name, spec in case["features"].items()}
    try:
        parsed = tf.io.parse_example(examples, features)
    except tf.errors.OpError as error:
        text = error.message.split("}} ", 1)[-1].rsplit(" [Op:", 1)[0]
        answers.append({"code": error.error_code, "text": text})
    except UnicodeDecodeError:
        # The text quotes an example that is none.
        answers.append({"code": 3, "text": "Could not parse example input, value: ''"})
    else:
        answers.append(
            {
                "shapes": {name: tensor.shape.as_list() for name, tensor in parsed.items()},
                "values": {name: listed(tensor.numpy().ravel().tolist()) for name, tensor in parsed.items()},
            }
        )
json.dump(answers, sys.stdout)
