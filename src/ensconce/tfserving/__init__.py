"""TensorFlow Serving's messages: classes, element types, tensors from and to numpy, and the refusals of the API.

Nothing in here depends on the server; a client needs exactly this package.
"""
