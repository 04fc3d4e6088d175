"""TensorFlow Serving's API: gRPC, REST, model manager, engines.

=============  =====================================================================================
engines        a model version's decrypted files become a ``Servable``
manager        which versions of which models are loaded, and which of them answers
answers        a request message in, a response message out
grpc           the gRPC front
rest           the REST front; ``json_tensors`` and ``json_outputs`` are its JSON, ``http1`` its HTTP
tls            one certificate for both fronts, from memory, replaceable
workers        threads that compute, and a bound on how much may wait for them
batching       the same for predictions: what waits for the same computation is computed together
limits         how much a client may ask for
server         all of that, on two ports
=============  =====================================================================================
"""
