"""What the flags ask for, checked together; no file that they name has been read.

Rules and texts: ``Server::BuildAndStart`` in tensorflow_serving/model_servers/server.cc.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ensconce.errors import InputError
from ensconce.modelserver.flags import Value

__all__ = ["ChannelArguments", "Options"]

_PORTS: Final = range(65536)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class ChannelArguments:
    """gRPC's channel arguments that mean something here; ``ignored`` names the others.

    Attributes:
        max_connection_age_ms: milliseconds after which a connection is asked to end; never when None.
        max_connection_age_grace_ms: that requests on it then still have.
        max_concurrent_streams: requests at once on one connection.
        max_receive_message_length: bytes; when None the original's bound of 2 GiB, or less where memory is short.
        ignored: as they were given.
    """

    max_connection_age_ms: int | None = None
    max_connection_age_grace_ms: int = 30_000
    max_concurrent_streams: int = 1024
    max_receive_message_length: int | None = None
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ChannelArguments:
        """From ``KEY=VALUE,KEY=VALUE``; of a key that comes twice, the last counts.

        Raises:
            InputError: ``flag.value``, a part has no ``=``, or a number is negative where it may not be.
        """
        known: dict[str, int] = {}
        ignored: list[str] = []
        for part in filter(None, text.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise _wrong("--grpc_channel_arguments", part, "KEY=VALUE, separated by commas")
            name = key.removeprefix("grpc.")
            if name not in cls.__dataclass_fields__ or name == "ignored" or not _INTEGER.fullmatch(value):
                ignored.append(part)
                continue
            number = int(value)
            if name in ("max_receive_message_length", "max_connection_age_ms") and number == -1:
                known.pop(name, None)  # gRPC's "without a bound": as if it were not there
            elif number < 0:
                raise _wrong("--grpc_channel_arguments", part, "a number that is not negative")
            else:
                known[name] = number
        return cls(ignored=tuple(ignored), **known)


@dataclass(frozen=True)
class Options:
    """The flags; each attribute is called as its flag. A path is None where the flag is empty, and absolute otherwise:
    the process's working directory is another one while OpenVINO reads a model."""

    port: int
    grpc_socket_path: Path | None
    rest_api_port: int
    rest_api_timeout_in_ms: int
    rest_api_enable_cors_support: bool
    enable_batching: bool
    batching_parameters_file: Path | None
    allow_version_labels_for_unavailable_models: bool
    model_config_file: Path | None
    model_config_file_poll_wait_seconds: int
    model_name: str
    model_base_path: str
    num_load_threads: int
    num_unload_threads: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    file_system_poll_wait_seconds: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    ssl_config_file: Path | None
    saved_model_tags: tuple[str, ...]
    channel_arguments: ChannelArguments
    enable_model_warmup: bool
    num_request_iterations_for_warmup: int
    monitoring_config_file: Path | None
    prefer_tflite_model: bool
    num_tflite_pools: int
    enable_signature_method_name_check: bool
    enable_profiler: bool
    mixed_precision: str
    enable_serialization_as_tensor_content: bool

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> Options:
        """From the value of every flag.

        Raises:
            InputError: ``flag.value``, a value cannot be; ``flag.together``, values that cannot be together.
        """
        taken = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        for name in taken:
            if name.endswith(("_file", "_path")) and name != "model_base_path":
                taken[name] = Path(str(values[name])).absolute() if values[name] else None  # type: ignore[assignment]
        taken["saved_model_tags"] = tuple(str(values["saved_model_tags"]).split(","))  # type: ignore[assignment]
        taken["channel_arguments"] = ChannelArguments.parse(  # type: ignore[assignment]
            str(values["grpc_channel_arguments"])
        )
        session = int(values["tensorflow_session_parallelism"])
        separate = ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism")
        if session > 0 and all(int(values[name]) > 0 for name in separate):
            raise _together(
                "Either configure tensorflow_session_parallelism or (tensorflow_intra_op_parallelism, "
                "tensorflow_inter_op_parallelism) separately. You cannot configure all."
            )
        if session > 0 and not any(int(values[name]) > 0 for name in separate):
            taken |= dict.fromkeys(separate, session)
        for name, why in (
            ("use_alts_credentials", "ALTS exists in Google's cloud alone"),
            ("platform_config_file", "folders say which engine computes them"),
        ):
            if values[name]:
                raise _wrong(f"--{name}", str(values[name]), f"not given: {why}")
        options = cls(**taken)  # type: ignore[arg-type]
        options._check()
        return options

    def _check(self) -> None:
        for name in ("port", "rest_api_port"):
            if getattr(self, name) not in _PORTS:
                raise _wrong(f"--{name}", str(getattr(self, name)), "0 to 65535")
        if self.port == 0 and self.grpc_socket_path is None:
            raise _together("At least one of port or grpc_socket_path must be set.")
        if self.rest_api_port and self.rest_api_port == self.port:
            raise _together("rest_api_port cannot be the same as port. Please use a different port for the REST API.")
        if not self.model_base_path and self.model_config_file is None:
            raise _together("Both model_base_path and model_config_file are empty!")
        if self.batching_parameters_file is not None and not self.enable_batching:
            raise _together("batching_parameters_file is set without setting enable_batching to true.")
        if self.rest_api_timeout_in_ms < 1:
            raise _wrong("--rest_api_timeout_in_ms", str(self.rest_api_timeout_in_ms), "more than 0")
        for name in ("num_load_threads", "num_unload_threads", "max_num_load_retries", "num_tflite_pools"):
            if not 0 <= getattr(self, name) <= 1024:
                raise _wrong(f"--{name}", str(getattr(self, name)), "0 to 1024")
        if self.mixed_precision not in ("", "bfloat16"):
            raise _wrong("--mixed_precision", self.mixed_precision, "bfloat16, or nothing")


def _wrong(flag: str, found: str, rule: str) -> InputError:
    return InputError("flag.value", f"{flag} has a wrong value", found=found[:100], rule=rule)


def _together(text: str) -> InputError:
    return InputError("flag.together", text, remedy="ensconce-model-server --help tells what each flag means")
