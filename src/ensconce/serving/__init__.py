"""TensorFlow Serving's API: gRPC and REST, the models behind them, and the engines that compute these.

Requests, from the socket to the engine:

================  =====================================================================================
server            a replica's: both fronts on their ports, with one certificate
fronts            both fronts over one manager and one scheduler, on any sockets
tls               one certificate for both fronts, from memory, replaceable
connections       what servers of HTTP/1.1 and of HTTP/2 have in common; ``handshakes`` are those that are none yet,
                  ``crowd`` says who goes when there are too many
http1, http2      HTTP/1.1 and HTTP/2; they know nothing of what is served
grpc              the gRPC front
rest              the REST front; ``openapi`` describes it
sealing           requests that are sealed to this server, before either front reads them (``sealed_rest``,
                  ``grpc.sealed``)
json_tensors      JSON to arrays and back; ``json_outputs`` answers of Predict, ``json_examples`` Classify and
                  Regress
answers           a request message in, a response message out: Predict, status, metadata
answers_examples  the same for Classify, Regress and MultiInference; ``methods`` knows their signatures
batching          computes predictions in threads; what waits for the same is computed together
engines           a version's files become a ``Servable``
limits            how much a client may ask for
unforeseen        what is logged of errors that nobody foresaw, and what is answered
================  =====================================================================================

Versions, from the configuration to the table:

================  =====================================================================================
core              the configuration in force, and whatever follows from it
model_config      which configuration may follow another
source            looks into the models' folders
version_policy    which versions are wanted, and what to do next to have them
lifecycle         loads those, and unloads the others
loading           one load: its options, its threads, its errors
warmup            replays the requests that a version brings with it; ``replay`` answers one
manager           the table: which versions are loaded, and which of them answers
================  =====================================================================================

Told to others: ``observing`` (what the fronts tell of each request), ``metrics``, ``request_log``.
"""
