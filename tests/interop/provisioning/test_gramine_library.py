"""An unmodified program with Gramine's own library gets its key from this server, or finds out that it does not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ensconce.ratls.authority import CertificateAuthority

KEY = bytes(range(0xF0, 0x100))


def stopped(library: Any, ran: Any) -> None:
    """The program has no key; it does not run either, if its library is new enough."""
    assert ran.key == b""
    if library.fails_closed:
        assert ran.status == 1
        assert "terminating the whole process" in ran.complaint
        assert "it runs" not in ran.output
    else:
        assert (ran.status, ran.output) == (0, "it runs with nothing")


def refused(owner: Any, check: str) -> dict[str, Any]:
    ((event, fields),) = owner.wait_for_log()
    assert (event, fields["check"]) == ("key.refused", check)
    return dict(fields)


def test_a_key(owner: Any, library: Any) -> None:
    ran = owner.machine.run_for_key()
    assert ran.status == 0, ran.complaint
    assert ran.key == library.key
    assert "it runs with" in ran.output
    ((event, fields),) = owner.wait_for_log()
    assert (event, fields["wire"], fields["identity"]) == ("key.released", "v1", "program")
    assert fields["evidence_form"] == library.evidence


@pytest.mark.parametrize("owner", ["text"], indirect=True)
def test_a_text(owner: Any) -> None:
    ran = owner.machine.run()
    assert (ran.status, ran.output, ran.key) == (0, "it runs with for one seat", b""), ran.complaint


def test_one_server_after_another(owner: Any, library: Any) -> None:
    port = owner.machine.port
    ran = owner.machine.run_for_key(servers=f"localhost:1;127.0.0.1:2, localhost:{port} localhost:3")
    assert (ran.status, ran.key) == (0, library.key), ran.complaint


def test_no_server(owner: Any, library: Any) -> None:
    stopped(library, owner.machine.run_for_key(servers="localhost:1"))


def test_a_server_under_another_authority(owner: Any, library: Any) -> None:
    other = CertificateAuthority.create("the owner", int(time.time()))
    stopped(library, owner.machine.run_for_key(ca_pem=other.certificate_pem))
    assert "alert" in refused(owner, "tls.handshake")["found"]


def test_a_server_with_another_name(owner: Any, library: Any) -> None:
    stopped(library, owner.machine.run_for_key(servers=f"127.0.0.1:{owner.machine.port}"))
    refused(owner, "tls.handshake")


@pytest.mark.parametrize("owner", ["nothing"], indirect=True)
def test_a_policy_that_does_not_opt_in(owner: Any, library: Any) -> None:
    stopped(library, owner.machine.run_for_key())
    assert refused(owner, "policy.wire_v1")["identity"] == "program"


def test_a_key_that_was_retired(owner: Any, library: Any) -> None:
    owner.keystore.retire("model/digits/1")
    stopped(library, owner.machine.run_for_key())
    refused(owner, "key.retired")


def test_a_certificate_that_has_expired(owner: Any, library: Any) -> None:
    stopped(library, owner.machine.run_for_key(RA_TLS_CERT_TIMESTAMP_NOT_AFTER="20200101000000"))
    refused(owner, "ratls.validity")


@pytest.mark.parametrize("owner", ["text"], indirect=True)
def test_a_text_where_a_key_is_wanted(owner: Any, library: Any) -> None:
    """What the library makes of the wrong form is why the policy names one."""
    ran = owner.machine.run_for_key()
    if library.fails_closed:
        assert (ran.status, ran.key) == (1, b"")
    elif library.key_file == "keys/model":
        assert (ran.status, ran.key, ran.output) == (0, b"", "it runs with nothing")
    else:
        assert (ran.status, ran.key) == (0, b"for one seat")


CAREFUL = (
    'test -n "$SECRET_PROVISION_SECRET_STRING" && exec /bin/sh -c "echo it runs with $SECRET_PROVISION_SECRET_STRING"'
)


@pytest.mark.parametrize("owner", ["text"], indirect=True)
class TestTheShellLineOfTheManual:
    """docs/how-to/gramine-program.md: for libraries that fail open."""

    def test_starts_the_program_once_it_has_its_text(self, owner: Any) -> None:
        ran = owner.machine.run(program=CAREFUL)
        assert (ran.status, ran.output) == (0, "it runs with for one seat\n"), ran.complaint
        assert len(owner.wait_for_log()) == 1

    def test_does_not_start_it_without(self, owner: Any) -> None:
        ran = owner.machine.run(program=CAREFUL, servers="localhost:1")
        assert ran.status == 1
        assert "it runs" not in ran.output
