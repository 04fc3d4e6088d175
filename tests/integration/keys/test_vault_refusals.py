"""Vault's transit engine, and a name for everything that a server, a token or an address may be instead."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys import FolderPlace, KeyFile, SealedKeystore, SecretBuffer, new_key_file

if TYPE_CHECKING:
    from conftest import FakeVault, Vault

ROOT = bytes(range(32))
BINDING = {"ensconce:deployment": "d.test", "ensconce:keystore": "00"}


def root() -> SecretBuffer:
    return SecretBuffer.of(ROOT)


@pytest.mark.parametrize(
    ("status", "body", "check"),
    [
        (307, b"", "vault.standby"),
        (473, b"", "vault.standby"),
        (429, b'{"errors":["too many"]}', "vault.busy"),
        (500, b'{"errors":["1 error occurred"]}', "vault.failed"),
        (502, b"<html>", "vault.failed"),
        (503, b"busy", "vault.failed"),
        (200, b"<html>", "vault.answer"),
        (200, b"[]", "vault.answer"),
        (200, b"[" * 60000, "vault.answer"),
        (200, b"{}", "vault.answer"),
        (200, b'{"data":null}', "vault.answer"),
        (200, b'{"data":{"ciphertext":7}}', "vault.answer"),
        (200, b'{"data":{"ciphertext":""}}', "vault.answer"),
        (200, b'{"data":{"ciphertext":"a b"}}', "vault.answer"),
        (200, b'{"data":{"ciphertext":"\\u00e9"}}', "vault.answer"),
        (200, b'{"data":{"ciphertext":"' + b"a" * 8193 + b'"}}', "vault.answer"),
        (200, b" " * 70000, "vault.answer"),
        (204, b"", "vault.answer"),
    ],
)
def test_strange_answers(
    fake_vault: Vault, fake: FakeVault, status: int, body: bytes, check: str, refused: Any
) -> None:
    transit = fake_vault.transit()
    fake.answers.append((status, body))
    refused(lambda: transit.wrap(root(), BINDING), UnreachableError, check)


@pytest.mark.parametrize("plaintext", ["", "AAAA", "!!!!", "QUJD" * 20])
def test_an_unwrapped_key_that_is_none(fake_vault: Vault, fake: FakeVault, plaintext: str, refused: Any) -> None:
    transit = fake_vault.transit()
    fake.answers.append((200, json.dumps({"data": {"plaintext": plaintext}}).encode()))
    refused(lambda: transit.unwrap("vault:v1:x", BINDING), UnreachableError, "vault.answer")


def test_what_a_server_says_is_shown_in_one_short_line(fake_vault: Vault, fake: FakeVault, refused: Any) -> None:
    transit = fake_vault.transit()
    fake.answers.append((400, json.dumps({"errors": ["\x1b[2J\n" + "x" * 5000]}).encode()))
    error = refused(lambda: transit.wrap(root(), BINDING), InputError, "vault.request")
    assert len(str(error)) < 600
    assert str(error).isprintable()


def test_tokens_are_renewed_past_half_their_life(fake_vault: Vault, fake: FakeVault) -> None:
    token_file = fake_vault.token()
    transit = fake_vault.transit(token_file=token_file)
    token = fake.tokens[token_file.read_text().strip()]
    wrapped = transit.wrap(root(), BINDING)
    transit.unwrap(wrapped, BINDING)
    assert fake.asked[-1][1] == "auth/token/lookup-self"
    token.ttl = token.creation_ttl // 2 - 1
    transit.unwrap(wrapped, BINDING)
    assert fake.asked[-1][1] == "auth/token/renew-self"
    assert token.ttl == token.creation_ttl


def test_a_token_that_cannot_be_renewed_is_worth_a_warning(
    fake_vault: Vault, fake: FakeVault, caplog: pytest.LogCaptureFixture
) -> None:
    token_file = fake_vault.token()
    transit = fake_vault.transit(token_file=token_file)
    wrapped = transit.wrap(root(), BINDING)
    fake.tokens[token_file.read_text().strip()].ttl = 1
    good = json.dumps(fake.answer("POST", "transit/decrypt/ensconce", "root", fake_decrypt(wrapped))[1]).encode()
    lookup = json.dumps({"data": {"renewable": True, "creation_ttl": 100, "ttl": 1}}).encode()
    fake.answers += [(200, good), (200, lookup), (400, b'{"errors":["lease is not renewable"]}')]
    with caplog.at_level(logging.WARNING), transit.unwrap(wrapped, BINDING) as again:
        assert bytes(again.view) == ROOT
    assert "renewed" in caplog.text
    assert token_file.read_text().strip() not in caplog.text


def fake_decrypt(wrapped: str) -> dict[str, str]:
    from ensconce.keys.vault import _associated

    return {"ciphertext": wrapped, "associated_data": _associated(BINDING)}


def test_a_namespace_is_named(fake_vault: Vault, fake: FakeVault) -> None:
    fake_vault.transit(namespace="team/a").wrap(root(), BINDING)
    assert fake.namespaces[-1] == "team/a"


def test_a_keys_name_cannot_lead_elsewhere(fake_vault: Vault, fake: FakeVault) -> None:
    transit = fake_vault.transit(token_file=fake_vault.token('path "*" { capabilities = ["update"] }'), key="x?y#z")
    transit.wrap(root(), BINDING)
    assert fake.asked[-1][1] == "transit/encrypt/x%3Fy%23z"


def test_nobody_answers(fake_vault: Vault, find_port: Callable[[], int], refused: Any) -> None:
    transit = fake_vault.transit(address=f"https://127.0.0.1:{find_port()}")
    refused(lambda: transit.wrap(root(), BINDING), UnreachableError, "vault.unreachable")


@pytest.mark.parametrize("more", [b"a", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_answer_that_never_ends(
    more: bytes, fake_vault: Vault, listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    done = threading.Event()

    def dribble(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: " if more == b"a" else more)
            while not done.wait(0.02):
                connection.sendall(more)

    monkeypatch.setattr("ensconce.keys.vault._TOTAL_S", 0.3)
    server = listen(dribble)
    try:
        transit = fake_vault.transit(address=f"http://{server.address}")
        refused(lambda: transit.wrap(root(), BINDING), UnreachableError, "vault.unreachable")
    finally:
        done.set()
        server.stop()


def test_a_server_that_says_nothing(
    fake_vault: Vault, listen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    done = threading.Event()
    monkeypatch.setattr("ensconce.keys.vault._TIMEOUT_S", 0.2)
    server = listen(lambda connection: (done.wait(60), connection.close()))
    try:
        for scheme in ("http", "https"):
            transit = fake_vault.transit(address=f"{scheme}://{server.address}")
            error = refused(
                lambda transit=transit: transit.wrap(root(), BINDING), UnreachableError, "vault.unreachable"
            )  # type: ignore[misc]
            assert "imeout" in (error.found or "")
    finally:
        done.set()
        server.stop()


def test_no_detail_of_the_conversation_is_logged(fake_vault: Vault, caplog: pytest.LogCaptureFixture) -> None:
    token_file = fake_vault.token()
    transit = fake_vault.transit(token_file=token_file)
    with caplog.at_level(logging.DEBUG):  # `ensconce -v -v`
        transit.unwrap(transit.wrap(root(), BINDING), BINDING)
    assert "transit/decrypt" in caplog.text
    for secret in (token_file.read_text().strip(), base64.b64encode(ROOT).decode(), repr(ROOT)):
        assert secret not in caplog.text


def test_a_proxy_of_the_environment_is_not_asked(fake_vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fake_vault.transit().wrap(root(), BINDING)


@pytest.mark.parametrize(
    "address",
    [
        *("", "vault", "http://vault.example.test:8200", "ftp://127.0.0.1", "https://", "https://u:p@v.test"),
        *("https://v.test/path", "https://v.test/?q=1", "https://v.test/#f", "https://v.test:99999"),
    ],
)
def test_addresses_that_are_none(fake_vault: Vault, address: str, refused: Any) -> None:
    refused(lambda: fake_vault.transit(address=address).wrap(root(), BINDING), InputError, "vault.address")


def test_http_is_taken_on_this_machine_alone(fake_vault: Vault, refused: Any) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        transit = fake_vault.transit(address=f"http://{host}:1")
        refused(lambda transit=transit: transit.wrap(root(), BINDING), UnreachableError, "vault.unreachable")  # type: ignore[misc]


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"caf\xc3\xa9", b"x" * 8193])
def test_token_files_that_hold_none(fake_vault: Vault, tmp_path: Path, content: bytes, refused: Any) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    path.chmod(0o600)
    refused(lambda: fake_vault.transit(token_file=path).wrap(root(), BINDING), InputError, "vault.token_file")


def test_token_files_that_others_can_read_or_that_are_none(fake_vault: Vault, tmp_path: Path, refused: Any) -> None:
    good = fake_vault.token()
    for mode in (0o644, 0o604, 0o620, 0o602):
        good.chmod(mode)
        error = refused(
            lambda: fake_vault.transit(token_file=good).wrap(root(), BINDING), InputError, "vault.token_file"
        )
        assert error.remedy == f"chmod 600 {good}"
    good.chmod(0o640)  # as Vault Agent writes it
    fake_vault.transit(token_file=good).wrap(root(), BINDING)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "fifo"):
        refused(
            lambda path=path: fake_vault.transit(token_file=path).wrap(root(), BINDING), InputError, "vault.token_file"
        )  # type: ignore[misc]


def test_authorities_that_are_none(fake_vault: Vault, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "empty").touch()
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path):
        transit = fake_vault.transit(ca_file=path)
        refused(lambda transit=transit: transit.wrap(root(), BINDING), InputError, "vault.ca_file")  # type: ignore[misc]


def test_the_root_key_is_bound_to_its_own_header(fake_vault: Vault, tmp_path: Path, refused: Any) -> None:
    """One keystore's wrapped key in another's header opens nothing, though Vault would unwrap it."""
    transit = fake_vault.transit()
    for name in ("a", "b"):
        SealedKeystore.create(FolderPlace(tmp_path / name), transit, deployment="d.test")
    one, other = (bytearray((tmp_path / name / "keystore.sealed").read_bytes()) for name in ("a", "b"))
    length = int.from_bytes(one[52:56], "big")
    one[56 : 56 + length] = other[56 : 56 + length]
    (tmp_path / "a" / "keystore.sealed").write_bytes(one)
    refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "a"), transit), IntegrityError, "vault.ciphertext")


def test_the_wrong_sort_never_asks(fake_vault: Vault, fake: FakeVault, tmp_path: Path, refused: Any) -> None:
    SealedKeystore.create(FolderPlace(tmp_path / "k"), new_key_file(tmp_path / "key"))
    transit, before = fake_vault.transit(), len(fake.asked)
    refused(lambda: SealedKeystore.open(FolderPlace(tmp_path / "k"), transit), InputError, "keystore.unlock")
    refused(
        lambda: SealedKeystore.open(FolderPlace(tmp_path / "k2"), KeyFile(tmp_path / "key")),
        InputError,
        "keystore.missing",
    )
    assert len(fake.asked) == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from([200, 201, 204, 301, 400, 403, 404, 405, 412, 429, 500, 503, 599]),
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["data", "errors", "plaintext", "ciphertext"]), inner, max_size=4),
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    ),
)
def test_whatever_it_answers_is_an_error_with_a_name(
    fake_vault: Vault, fake: FakeVault, status: int, body: bytes
) -> None:
    transit = fake_vault.transit(token_file=_any_token(fake_vault))
    fake.answers[:] = [(status, body)]
    with pytest.raises(EnsconceError) as caught:
        transit.unwrap("vault:v1:x", BINDING)
    assert caught.value.check.startswith("vault.")
    assert str(caught.value).isprintable()


def _any_token(vault: Vault) -> Path:
    path = vault.folder / "any-token"
    if not path.exists():
        path.write_bytes(vault.token().read_bytes())
        path.chmod(0o600)
    return path
