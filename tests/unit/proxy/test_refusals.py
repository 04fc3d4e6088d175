from __future__ import annotations

import json

import pytest

from ensconce.errors import EvidenceError, InputError, RefusedError, UnreachableError
from ensconce.proxy.refusals import code_of, code_of_reset, response_of
from ensconce.serving.http2.frames import ErrorCode
from ensconce.tfserving.refusal import Code


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [
        (UnreachableError, Code.UNAVAILABLE, 503),
        (EvidenceError, Code.FAILED_PRECONDITION, 502),
        (RefusedError, Code.FAILED_PRECONDITION, 502),
        (InputError, Code.INTERNAL, 500),
    ],
)
def test_an_error_has_a_status_in_both_protocols(kind, code, status) -> None:
    error = kind("a.check", "it failed", found="this", rule="that", remedy="mend it")
    assert code_of(error) is code
    response = response_of(error)
    assert response.status == status
    assert json.loads(response.body) == {"error": str(error), "refusal": error.fields()}


def test_what_grpc_makes_of_resets() -> None:
    expected = {
        ErrorCode.NO_ERROR: Code.INTERNAL,
        ErrorCode.PROTOCOL_ERROR: Code.INTERNAL,
        ErrorCode.REFUSED_STREAM: Code.UNAVAILABLE,
        ErrorCode.CANCEL: Code.CANCELLED,
        ErrorCode.ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
        ErrorCode.INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
    }
    assert {code: code_of_reset(code) for code in expected} == expected
