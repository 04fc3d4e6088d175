from __future__ import annotations

from pathlib import Path

import pytest

from ensconce.errors import InputError
from ensconce.modelserver.flags import parse_flags
from ensconce.modelserver.options import ChannelArguments, Options

BASE = "--model_base_path=/models/m"


def options(*arguments: str) -> Options:
    return Options.of(parse_flags([BASE, *arguments]))


def test_defaults() -> None:
    default = options()
    assert (default.port, default.rest_api_port, default.model_name) == (8500, 0, "default")
    assert (default.model_base_path, default.model_config_file) == ("/models/m", None)
    assert default.saved_model_tags == ("serve",)
    assert default.enable_model_warmup


def test_paths_and_lists() -> None:
    given = options("--ssl_config_file=a/b", "--saved_model_tags=serve,gpu", "--grpc_socket_path=s")
    assert (given.ssl_config_file, given.grpc_socket_path) == (Path.cwd() / "a/b", Path.cwd() / "s")
    assert given.saved_model_tags == ("serve", "gpu")


def test_session_parallelism_stands_for_both() -> None:
    both = options("--tensorflow_session_parallelism=3")
    assert (both.tensorflow_intra_op_parallelism, both.tensorflow_inter_op_parallelism) == (3, 3)
    one = options("--tensorflow_session_parallelism=3", "--tensorflow_intra_op_parallelism=2")
    assert (one.tensorflow_intra_op_parallelism, one.tensorflow_inter_op_parallelism) == (2, 0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port=0"], "At least one of"),
        (["--rest_api_port=8500"], "cannot be the same"),
        (["--model_base_path="], "are empty!"),
        (["--batching_parameters_file=f"], "without setting enable_batching"),
        (
            [
                "--tensorflow_session_parallelism=1",
                "--tensorflow_intra_op_parallelism=1",
                "--tensorflow_inter_op_parallelism=1",
            ],
            "You cannot configure all",
        ),
    ],
)
def test_what_cannot_be_together(arguments: list[str], text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        options(*arguments)
    assert caught.value.check == "flag.together"


@pytest.mark.parametrize(
    "argument",
    [
        "--port=65536",
        "--port=-1",
        "--rest_api_port=70000",
        "--rest_api_timeout_in_ms=0",
        "--num_load_threads=-1",
        "--num_load_threads=5000",
        "--max_num_load_retries=-1",
        "--mixed_precision=int8",
        "--use_alts_credentials",
        "--platform_config_file=f",
        "--grpc_channel_arguments=a",
        "--grpc_channel_arguments=grpc.max_concurrent_streams=-2",
    ],
)
def test_wrong_values(argument: str) -> None:
    with pytest.raises(InputError) as caught:
        options(argument)
    assert caught.value.check == "flag.value"
    assert argument.split("=")[0] in caught.value.problem


def test_channel_arguments() -> None:
    given = ChannelArguments.parse(
        "grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb,grpc.so_reuseaddr=1,grpc.max_connection_age_ms=50"
    )
    assert given.max_connection_age_ms == 50
    assert given.ignored == ("grpc.lb_policy_name=grpclb", "grpc.so_reuseaddr=1")
    assert ChannelArguments.parse("") == ChannelArguments()
    assert ChannelArguments.parse("grpc.max_connection_age_ms=-1").max_connection_age_ms is None
    assert ChannelArguments.parse("grpc.ignored=3").ignored == ("grpc.ignored=3",)
