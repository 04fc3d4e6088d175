"""The gRPC front, over HTTP/2: calls, statuses, and the services that are served."""

from ensconce.serving.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
