"""The program ``ensconce-model-server``, from its command line to SIGTERM.

Order of starting, and what is told: tensorflow_serving/model_servers/server.cc. Models are loaded before a port is
opened; SIGTERM and SIGINT let requests that are here be answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from ensconce import __version__
from ensconce.addresses import Address, listen, listen_unix
from ensconce.errors import EnsconceError, printable
from ensconce.modelserver.files import batching_of, metrics_path_of, models_of, tls_of
from ensconce.modelserver.flags import ignored, parse_flags, usage
from ensconce.modelserver.options import Options
from ensconce.modelserver.profiler import PROFILER_SERVICE, profiler_methods
from ensconce.serving.collection import set_aside
from ensconce.serving.core import CoreOptions, ServerCore
from ensconce.serving.engines.folder import FolderOptions, load_folder
from ensconce.serving.engines.saved_model import SessionOptions
from ensconce.serving.fronts import FrontOptions, Fronts, Listener
from ensconce.serving.limits import Limits
from ensconce.serving.loading import Loader, LoadOptions
from ensconce.serving.metrics import Metrics
from ensconce.serving.replay import replay
from ensconce.serving.request_log import LogWriter, RequestLog, rates_of
from ensconce.serving.rest import RestOptions
from ensconce.serving.signals import told_to_end
from ensconce.serving.warmup import warming_up
from ensconce.tfserving.messages import ReloadConfigResponse
from ensconce.tfserving.refusal import RequestError, invalid

__all__ = ["main", "message_bytes"]

# Also when it is run as __main__.
_log = logging.getLogger("ensconce.modelserver.program")

_PROGRAM: Final = "ensconce-model-server"
_GRACE_S: Final = 30.0
_BACKLOG: Final = 1024
_MIB: Final = 1024 * 1024
_FOREVER: Final = 10 * 365 * 86_400.0


def main() -> None:
    """Run until SIGTERM; the exit status is 0 then, and that of the error otherwise."""
    arguments = sys.argv[1:]
    if any(each in ("--help", "-h") for each in arguments):
        sys.stdout.write(usage(_PROGRAM))
        return
    status = 0
    try:
        values = parse_flags(arguments)
        if values["version"]:
            sys.stdout.write(f"TensorFlow ModelServer: ensconce {__version__}\nTensorFlow Library: {_tensorflow()}\n")
            return
        _begin_log()
        _open_files()
        for sentence in ignored(values):
            _log.warning("%s", sentence)
        asyncio.run(_serve(Options.of(values)))
    except RequestError as error:
        status = _fail(f"Failed to start server. Error: {error.code.name}: {error.problem}", 1)
    except EnsconceError as error:
        status = _fail(f"error: {error}", error.exit_status)
    except KeyboardInterrupt:
        status = 130
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End at once: a load that hangs, or threads of an engine, have nothing left to finish."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _serve(options: Options) -> None:
    stopping = told_to_end()
    # Everything that a mistake can be in is read before anything is loaded.
    config, batching, context = models_of(options), batching_of(options), tls_of(options.ssl_config_file)
    for part in options.channel_arguments.ignored:
        _log.warning("gRPC channel argument %s is ignored", part)
    metrics = Metrics()
    rest = RestOptions(
        timeout_in_ms=options.rest_api_timeout_in_ms,
        enable_cors_support=options.rest_api_enable_cors_support,
        metrics_path=metrics_path_of(options),
    )
    set_aside()
    core = ServerCore(_loader(options, metrics), _core_options(options))
    log = LogWriter(sys.stderr.buffer)
    loading = asyncio.create_task(asyncio.to_thread(core.reload, config))
    await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        _leave(0)
    loading.result()
    if options.model_config_file is not None:
        core.follow(options.model_config_file, options.model_config_file_poll_wait_seconds)
    fronts = Fronts(
        core.manager,
        FrontOptions(
            limits=_limits(options),
            batching=batching,
            rest=rest,
            reload=_reload(core),
            metrics=metrics,
            request_log=RequestLog(log.write, rates_of(lambda: core.config), logged=metrics.logged),
            check_method_names=options.enable_signature_method_name_check,
            as_content=options.enable_serialization_as_tensor_content,
            services={PROFILER_SERVICE: profiler_methods()} if options.enable_profiler else {},
        ),
    )
    try:
        await fronts.listen(*_listeners(options, context))
        _tell(options)
        await stopping
        _log.info("stopping: requests that are here are answered")
        if options.grpc_socket_path is not None:
            options.grpc_socket_path.unlink(missing_ok=True)
    finally:
        await fronts.stop(_GRACE_S)
        log.close()


def _loader(options: Options, metrics: Metrics) -> Loader:
    folder_options = FolderOptions(
        session=SessionOptions(
            saved_model_tags=options.saved_model_tags,
            intra_op_parallelism=options.tensorflow_intra_op_parallelism,
            inter_op_parallelism=options.tensorflow_inter_op_parallelism,
            mixed_precision=options.mixed_precision,
        ),
        prefer_tflite_model=options.prefer_tflite_model,
        num_tflite_pools=options.num_tflite_pools,
    )

    def load(_name: str, _version: int, folder: Path) -> Any:
        return load_folder(folder, folder_options)

    loader: Loader = load
    if options.enable_model_warmup:
        loader = warming_up(loader, replay, iterations=options.num_request_iterations_for_warmup)
    return metrics.counting(loader)


def _core_options(options: Options) -> CoreOptions:
    return CoreOptions(
        loading=LoadOptions(
            max_num_load_retries=options.max_num_load_retries,
            load_retry_interval_micros=options.load_retry_interval_micros,
            num_load_threads=options.num_load_threads,
            num_unload_threads=options.num_unload_threads,
        ),
        file_system_poll_wait_seconds=options.file_system_poll_wait_seconds,
        allow_version_labels_for_unavailable_models=options.allow_version_labels_for_unavailable_models,
    )


def _limits(options: Options) -> Limits:
    """Wider than a replica's: the operator trusts this machine, and its clients may know each other."""
    given = options.channel_arguments
    age = given.max_connection_age_ms
    return Limits(
        message_bytes=message_bytes(given.max_receive_message_length, _memory()),
        body_bytes=128 * _MIB,
        requests=given.max_concurrent_streams,
        connection_age=_FOREVER if age is None else age / 1000,
        connection_grace=given.max_connection_age_grace_ms / 1000,
    )


def message_bytes(given: int | None, memory: int) -> int:
    """The longest gRPC message: what the operator says, or 2 GiB as in the original, or less where memory is short.

    Four such messages may be here at once, and each is there three times over while it is read.

    Args:
        given: by the operator.
        memory: bytes of RAM.
    """
    return min(2048 * _MIB - 1, memory // 16) if given is None else given


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _open_files() -> None:
    """As many as the system lets us: every connection is one, and many systems begin at 1024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _reload(core: ServerCore) -> Callable[[Any], Any]:
    """Answers ``HandleReloadConfigRequest``: model_servers/model_service_impl.cc. Metrics are told as unchanged."""

    async def reload(request: Any) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported"
            )
        try:
            await asyncio.to_thread(core.reload, request.config)
        except RequestError as error:
            _log.error("ReloadConfig failed: %s", error.problem)
            raise
        response = ReloadConfigResponse()
        response.status.SetInParent()
        for name in dict.fromkeys(request.metric_names):
            response.metric.add(name=name, int64_value_increase=0)
        return response

    return reload


def _listeners(options: Options, context: Any) -> tuple[list[Listener], list[Listener]]:
    """Sockets of gRPC and of REST; REST has no TLS, as there."""
    grpc: list[Listener] = []
    if options.port:
        grpc.append((_everywhere(options.port), context))
    if options.grpc_socket_path is not None:
        grpc.append((listen_unix(options.grpc_socket_path, "serving.socket", private=False), context))
    rest: list[Listener] = [(_everywhere(options.rest_api_port), None)] if options.rest_api_port else []
    return grpc, rest


def _everywhere(port: int) -> socket.socket:
    """A listening socket on every address of this machine, IPv6 and IPv4 where both are there."""
    if socket.has_dualstack_ipv6():
        try:
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
        except OSError:
            pass  # no IPv6 on this machine, or the port is taken: the other way tells which
        else:
            listener.setblocking(False)
            return listener
    return listen(Address.parse(f"0.0.0.0:{port}"), "serving.port")


def _tell(options: Options) -> None:
    if options.port:
        _log.info("Running gRPC ModelServer at 0.0.0.0:%d ...", options.port)
    if options.grpc_socket_path is not None:
        _log.info("Running gRPC ModelServer at UNIX socket %s ...", options.grpc_socket_path)
    if options.rest_api_port:
        _log.info("Exporting HTTP/REST API at:localhost:%d ...", options.rest_api_port)


def _begin_log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    line = "%(asctime)s.%(msecs)03d: %(levelname).1s %(name)s:%(lineno)d] %(message)s"
    handler.setFormatter(logging.Formatter(line, "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("ensconce").setLevel(logging.INFO)


def _tensorflow() -> str:
    from importlib.metadata import PackageNotFoundError, version

    for package in ("tensorflow-cpu", "tensorflow"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"


def _fail(text: str, status: int) -> int:
    sys.stderr.write(printable(text) + "\n")
    return status


if __name__ == "__main__":
    main()
