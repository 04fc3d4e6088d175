"""TensorFlow Serving's API: messages, gRPC, REST, model manager, engines."""
