"""A proxy on the client's machine: plain gRPC and REST come in, attested TLS goes out.

=========  ===============================================================================
program    the command: listeners, signals, the end
listening  where it may listen: beyond this machine with TLS only
grpc       one call of gRPC, passed on as HTTP/2 has it; ``health`` is the proxy's own
rest       REST, passed on request by request
upstream   the replicas: a pool that may not be there yet
link       HTTP/2 to where one tunnel of the pool leads; ``back`` is a connection of it,
           ``transport`` moves its bytes
refusals   errors as gRPC and REST say them
status     /healthz, /readyz and /metrics
=========  ===============================================================================
"""
