"""TensorFlow Serving's messages: classes, element types, tensors from and to numpy, signatures, and the API's refusals.

Nothing in here depends on the server; a client or a converter needs exactly this package.
"""
