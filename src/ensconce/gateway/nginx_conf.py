"""The nginx configuration, as text. Every path in it is relative to the gateway's own folder (``nginx -p``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ensconce.addresses import Address, check_domain
from ensconce.gateway.backends import ApiName
from ensconce.gateway.balance import REST_S

__all__ = ["quoted", "render"]

# The first words that `map` takes for itself (ngx_stream_map_module); a backslash makes them ordinary again.
_MAP_WORDS = frozenset({"default", "hostnames", "include", "volatile"})

_TEMPLATE = """# Written by ensconce; changes are lost at the next reload.
{load}daemon off;
error_log error.log notice;
worker_processes {workers};
worker_rlimit_nofile {files};
# After a reload the old workers keep the connections that they have, but not for ever.
worker_shutdown_timeout 15m;

events {{
  worker_connections {connections};
}}

stream {{
  # What the host can know of a connection, one JSON object a line. No variable here can hold a byte of its content.
  log_format passed escape=json
    '{{"time":"$time_iso8601","sni":"$ssl_preread_server_name","upstream":"$upstream_addr",'
    '"bytes_in":$bytes_received,"bytes_out":$bytes_sent,"seconds":$session_time,"status":$status}}';
  access_log access.log passed;

  preread_buffer_size 16k;
  preread_timeout 10s;
  # A request can be an image: with 16k nginx would pass it on in 40 pieces, and take a third longer for it.
  proxy_buffer_size 128k;
  proxy_connect_timeout 2s;
  proxy_next_upstream on;
  proxy_next_upstream_timeout 10s;
  proxy_timeout 1h;
  proxy_socket_keepalive on;
  tcp_nodelay on;
  map_hash_bucket_size 512;
{apis}}}
"""

_API = """
  map $ssl_preread_server_name ${api}_pool {{
    # An unknown name has no pool, and nginx closes the connection.
    default "";
{routes}  }}
{upstream}  server {{
    listen {address} so_keepalive=60s:20s:3;
    ssl_preread on;
    proxy_pass ${api}_pool;
  }}
"""

_UPSTREAM = """  upstream {api}_replicas {{
    # Shared by all workers. Fewest connections first: a new replica gets each new connection until it has its share.
    zone {api}_replicas 256k;
    least_conn;
{servers}  }}
"""


def render(
    listeners: Mapping[ApiName, Address],
    domain: str,
    pools: Mapping[ApiName, Sequence[Address]],
    *,
    stream_module: Path | None,
    workers: int,
    open_files: int,
) -> str:
    """The whole ``nginx.conf``.

    Args:
        listeners: the address of each API, ports real.
        domain: the only server name that is passed on.
        pools: the replicas' listeners of each API; an API with none refuses every connection.
        stream_module: the dynamic module's file, or ``None``.
        workers: number of worker processes.
        open_files: how many files a worker may have open; a connection takes two.

    Raises:
        InputError: the domain is not a DNS name.
    """
    apis = "".join(
        _API.format(
            api=api,
            routes=_route(api, check_domain(domain)) if pools.get(api) else "",
            upstream=_upstream(api, pools[api]) if pools.get(api) else "",
            address=address,
        )
        for api, address in listeners.items()
    )
    return _TEMPLATE.format(
        load=f"load_module {quoted(str(stream_module))};\n" if stream_module else "",
        workers=workers,
        files=open_files,
        connections=max(open_files - 64, 128),
        apis=apis,
    )


def _route(api: ApiName, domain: str) -> str:
    return f"    {quoted(chr(92) + domain if domain in _MAP_WORDS else domain)} {api}_replicas;\n"


def _upstream(api: ApiName, targets: Sequence[Address]) -> str:
    servers = "".join(f"    server {target} max_fails=1 fail_timeout={REST_S:.0f}s;\n" for target in targets)
    return _UPSTREAM.format(api=api, servers=servers)


def quoted(text: str) -> str:
    """``text`` as one quoted word of nginx's configuration language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
