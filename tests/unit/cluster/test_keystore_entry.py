"""The block ``keystore:`` of the deployment file, read and replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensconce.cluster.deployment import Deployment
from ensconce.cluster.keystore_entry import (
    AwsKmsEntry,
    FileEntry,
    PassphraseEntry,
    VaultEntry,
    read_entry,
    replaced_in,
    unlock_of,
)
from ensconce.errors import InputError
from ensconce.keys import KeyFile
from ensconce.keys.aws_kms import AwsKms
from ensconce.keys.vault import VaultTransit

PASSPHRASE = PassphraseEntry(kind="passphrase")


@pytest.mark.parametrize(
    "block",
    [
        {"kind": "nothing"},
        {"kind": "file", "path": "x"},
        {"kind": "passphrase", "text": "x"},
        {"kind": "vault", "address": "https://v"},
        {"kind": "vault", "address": "v:8200", "key": "k", "token_file": "t"},
        {"kind": "vault", "address": "https://v", "key": "a/b", "token_file": "t"},
        {"kind": "vault", "address": "https://v", "key": "..", "token_file": "t"},
        {"kind": "vault", "address": "https://v", "key": "k", "token_file": "t", "mount": "../sys"},
        {"kind": "vault", "address": "https://v", "key": "k", "token_file": "t", "token": "s.x"},
        {"kind": "aws-kms", "key_id": "k"},
        {"kind": "aws-kms", "key_id": "a b", "region": "eu-central-1"},
        {"kind": "aws-kms", "key_id": "k", "region": "eu central"},
    ],
)
def test_blocks_that_are_none(block: dict[str, object], deployment: Callable[..., Deployment]) -> None:
    with pytest.raises(InputError):
        deployment(keystore=block)


def test_what_the_blocks_stand_for(tmp_path: Path) -> None:
    vault = VaultEntry(kind="vault", address="https://v", key="k", token_file="t", ca_file="/ca.pem", namespace="a/b")
    assert unlock_of(vault, tmp_path, str) == VaultTransit(
        "https://v", "k", tmp_path / "t", "transit", Path("/ca.pem"), "a/b"
    )
    kms = AwsKmsEntry(kind="aws-kms", key_id="alias/e", region="eu-central-1", endpoint_url="http://127.0.0.1:1")
    assert unlock_of(kms, tmp_path, str) == AwsKms("alias/e", "eu-central-1", "http://127.0.0.1:1")
    assert unlock_of(FileEntry(), tmp_path, str) == KeyFile(tmp_path / "unlock.key")


def test_what_a_command_is_told(tmp_path: Path) -> None:
    assert read_entry("file") == FileEntry()
    assert read_entry("passphrase") == PASSPHRASE
    (tmp_path / "v.yaml").write_text("keystore:\n  kind: aws-kms\n  key_id: alias/e\n  region: eu-central-1\n")
    assert read_entry(str(tmp_path / "v.yaml")) == AwsKmsEntry(kind="aws-kms", key_id="alias/e", region="eu-central-1")
    for text in ("kind: file\n", "keystore: {kind: file}\nmore: 1\n", "keystore: {}\n", ""):
        (tmp_path / "v.yaml").write_text(text)
        with pytest.raises(InputError):
            read_entry(str(tmp_path / "v.yaml"))
    with pytest.raises(InputError, match=r"file\.read"):
        read_entry(str(tmp_path / "nowhere"))


BLOCKS = ["", "keystore: {kind: file}\n", "keystore:\n  kind: passphrase\n", "keystore:\n    kind: x\n\t\n    # c\n"]


@given(
    st.lists(st.sampled_from(["a: 1\n", "# comment\n", "\n", "b:\n  - 1\n", "keys: 1\n"]), max_size=4),
    st.sampled_from(BLOCKS),
    st.lists(st.sampled_from(["c: 1\n", "# comment\n", "d:\n  e: 1\n"]), max_size=4),
)
def test_everything_but_the_block_stays(before: list[str], block: str, after: list[str]) -> None:
    text = "".join(before) + block + "".join(after)
    without = replaced_in(text, None)
    assert without == "".join(before) + "".join(after)
    with_block = replaced_in(text, PASSPHRASE)
    assert with_block.count("keystore:\n  kind: passphrase\n") == 1
    assert replaced_in(with_block, None) == without


def test_a_file_without_a_newline_at_its_end() -> None:
    assert replaced_in("a: 1", PASSPHRASE) == "a: 1\nkeystore:\n  kind: passphrase\n"
