"""The gRPC front, over HTTP/2.

==========  ==============================================================================
server      the services on sockets, until it is stopped
services    TensorFlow Serving's two services; ``examples`` are those of their methods that
            take examples
health      the standard health service
reflection  the standard reflection service
call        one call with one request and one response; ``streaming`` is one with any number
framing     messages within a body, and timeouts
messages    bytes to messages and back
status      how a call ends, on the wire
==========  ==============================================================================
"""

from ensconce.serving.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
