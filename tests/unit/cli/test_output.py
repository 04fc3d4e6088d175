from __future__ import annotations

import subprocess
import sys

import pytest

from ensconce.cli.output import print_table, remark, say


def test_text_is_printed_as_it_is_and_controls_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    say("arn:key:[bold]α\t\x1b[2J\x9b2J\r\x7f")
    remark("line 1\nline 2\x07")
    assert capsys.readouterr() == ("arn:key:[bold]α\t[2J2J\n", "line 1\nline 2\n")


def test_a_table_cuts_nothing_and_pads_no_line_s_end(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "long name"], [["x" * 300, ""], ["y", "z"]])
    assert capsys.readouterr().out.splitlines() == [f"a{' ' * 299}  long name", "x" * 300, f"y{' ' * 299}  z"]


def test_a_stranger_s_cell_is_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["pod", "verdict"], [["digits-a\ndigits-b  UpToDate\u202e", "refused\t\x1b[2J"]])
    assert capsys.readouterr().out.splitlines()[1:] == ["digits-a?digits-b  UpToDate?  refused??[2J"]


def test_a_command_loads_what_it_needs() -> None:
    """Each of these takes as long to load as all of ``ensconce key list``."""
    program = "import sys, ensconce.cli.main, ensconce.cluster.custody; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"google.protobuf", "grpc", "httpx", "numpy", "openvino", "rich", "sqlalchemy", "ensconce.enclave.build"}
    assert heavy & set(done.stdout.split()) == set()
