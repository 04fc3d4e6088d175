from __future__ import annotations

import pytest

from ensconce.errors import InputError
from ensconce.modelserver.flags import FLAGS, ignored, parse_flags, usage


def test_without_arguments_every_flag_has_its_default() -> None:
    assert parse_flags([]) == {flag.name: flag.default for flag in FLAGS}
    assert len({flag.name for flag in FLAGS}) == len(FLAGS)


def test_each_kind_of_value() -> None:
    values = parse_flags(
        ["--port=0", "--model_name=a=b", "--per_process_gpu_memory_fraction=0.5", "--load_retry_interval_micros=-1"]
    )
    assert (values["port"], values["model_name"]) == (0, "a=b")
    assert (values["per_process_gpu_memory_fraction"], values["load_retry_interval_micros"]) == (0.5, -1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("", True), ("=true", True), ("=True", True), ("=1", True), ("=false", False), ("=0", False)],
)
def test_booleans(argument: str, value: bool) -> None:
    assert parse_flags([f"--enable_batching{argument}"])["enable_batching"] is value
    assert parse_flags([f"--enable_model_warmup{argument}"])["enable_model_warmup"] is value


def test_of_a_flag_that_comes_twice_the_last_counts() -> None:
    assert parse_flags(["--port=1", "--port=2"])["port"] == 2


@pytest.mark.parametrize(
    "argument", ["--prot=1", "port=1", "-port=1", "8500", "", "--", "--no-enable_batching", "---port=1"]
)
def test_what_is_no_flag_is_an_error(argument: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_flags(["--port=1", argument])
    assert caught.value.check == "flag.unknown"
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    "argument",
    [
        "--port",
        "--port=",
        "--port=x",
        "--port=1.5",
        "--port=99999999999999999999",
        "--port=٣",
        "--enable_batching=yes",
        "--enable_batching=",
        "--per_process_gpu_memory_fraction=a",
        "--model_name",
    ],
)
def test_wrong_values(argument: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_flags([argument])
    assert caught.value.check == "flag.value"
    assert argument.partition("=")[0] in caught.value.problem


def test_what_does_nothing_here_is_told_where_it_was_asked_for() -> None:
    assert ignored(parse_flags([])) == []
    values = parse_flags(["--grpc_max_threads=3", "--flush_filesystem_caches=false", "--port=1"])
    assert [text.split(" ")[0] for text in ignored(values)] == [
        "--flush_filesystem_caches=false",
        "--grpc_max_threads=3",
    ]


def test_help_names_every_flag_in_lines_that_fit() -> None:
    text = usage("ensconce-model-server")
    assert all(f"--{flag.name}=" in text for flag in FLAGS)
    assert max(map(len, text.splitlines())) <= 100
