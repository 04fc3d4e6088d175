"""Starting Gramine in a container: what is executed and where, how it ends, and what is passed on of its words."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ensconce.cluster.pod.enclaves import start
from ensconce.cluster.replica import words_in
from ensconce.errors import InputError


@pytest.fixture
def gramine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program called gramine-sgx that does what the test says."""

    def make(script: str) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "gramine-sgx"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])

    return make


def test_gramine_runs_in_a_fresh_folder_with_links(tmp_path: Path, gramine: Callable[[str], None]) -> None:
    gramine('echo "$1"; pwd; ls; echo words >&2; exit 7')
    (tmp_path / "run" / "replica").mkdir(parents=True)
    (tmp_path / "run" / "replica" / "ready.json").write_text("of an earlier life")
    outputs = io.BytesIO(), io.BytesIO()
    started = start("gramine", tmp_path / "bundle", tmp_path / "run", None, outputs)
    assert started.enclave.status() == 7
    started.enclave.close()
    said = outputs[0].getvalue().decode().split()
    assert said == ["enclave/server", str(tmp_path / "run" / "replica"), "enclave", "models"]
    assert outputs[1].getvalue() == b"words\n"


@pytest.mark.parametrize("stream", ["1", "2"])
def test_its_last_words_are_heard_wherever_it_writes_them(
    tmp_path: Path, gramine: Callable[[str], None], stream: str
) -> None:
    told = '{"error": {"check": "platform.gramine", "problem": "no quote"}}'
    gramine(f"echo '{told}' >&{stream}; echo 'stopped'; exit 4")
    started = start("gramine", tmp_path / "bundle", tmp_path / "run", None, (io.BytesIO(), io.BytesIO()))
    assert started.enclave.status() == 4
    started.enclave.close()
    assert words_in(started.last_words, "the replica", "the log")["check"] == "platform.gramine"


def test_what_is_no_error_of_ours_is_shown_as_it_ended(tmp_path: Path, gramine: Callable[[str], None]) -> None:
    gramine("echo starting; echo 'error: Cannot open /dev/sgx_enclave' >&2; exit 1")
    started = start("gramine", tmp_path / "bundle", tmp_path / "run", None, (io.BytesIO(), io.BytesIO()))
    assert started.enclave.status() == 1
    started.enclave.close()
    words = words_in(started.last_words, "the replica", "the log")
    assert (words["check"], words["found"]) == ("replica.exit", "error: Cannot open /dev/sgx_enclave")


def test_what_gramine_opens_for_writing_is_a_copy(tmp_path: Path, gramine: Callable[[str], None]) -> None:
    enclave = tmp_path / "bundle" / "enclave"
    (enclave / "image").mkdir(parents=True)
    for name in ("ssl.cfg", "ca.pem"):
        (enclave / name).write_text(name)
        (enclave / name).chmod(0o444)
    gramine("cat enclave/ca.pem; test -L enclave/image && test ! -L enclave/ssl.cfg && echo more >> enclave/ssl.cfg")
    outputs = io.BytesIO(), io.BytesIO()
    started = start("gramine", tmp_path / "bundle", tmp_path / "run", None, outputs)
    assert started.enclave.status() == 0
    started.enclave.close()
    assert outputs[0].getvalue() == b"ca.pem"
    assert (enclave / "ssl.cfg").read_text() == "ssl.cfg"
    assert (tmp_path / "run" / "replica" / "enclave" / "ssl.cfg").read_text() == "ssl.cfgmore\n"


def test_a_signal_reaches_it(
    tmp_path: Path, gramine: Callable[[str], None], wait_for: Callable[[Callable[[], object], str], None]
) -> None:
    gramine("trap 'exit 0' TERM; echo here; while :; do sleep 0.01; done")
    outputs = io.BytesIO(), io.BytesIO()
    started = start("gramine", tmp_path / "bundle", tmp_path / "run", None, outputs)
    wait_for(outputs[0].getvalue, "its first word")
    started.enclave.signal(signal.SIGTERM)
    assert started.enclave.status() == 0
    started.enclave.signal(signal.SIGTERM)
    started.enclave.close()


def test_no_gramine_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    outputs = io.BytesIO(), io.BytesIO()
    with pytest.raises(InputError, match=r"replica\.gramine"):
        start("gramine", tmp_path / "bundle", tmp_path / "run", None, outputs)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"replica\.run"):
        start("gramine", tmp_path / "bundle", tmp_path / "file", None, outputs)
