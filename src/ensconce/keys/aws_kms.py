"""AWS KMS as the service that wraps the root key: ``Encrypt`` and ``Decrypt`` with a symmetric KMS key.

What the root key is for goes in as the encryption context: KMS refuses to unwrap it for anything else, writes it to
CloudTrail, and key policies can ask for it (``kms:EncryptionContext:ensconce:deployment``). Credentials come from where
boto3 finds them (its "Credentials" guide), never from ours. boto3 is the extra ``aws``; nothing else imports it.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import logging
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ensconce.errors import EnsconceError, InputError, IntegrityError, UnreachableError
from ensconce.keys.memory import SecretBuffer
from ensconce.keys.unlock import ROOT_KEY_SIZE, Sort

__all__ = ["AwsKms"]

_TIMEOUT_S = 10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHOWN = 300
# KMS's error codes (API reference, "Encrypt", "Decrypt", "Common Errors").
_DAMAGED = ("InvalidCiphertextException", "IncorrectKeyException")
_WRONG_KEY = ("NotFoundException", "DisabledException", "InvalidKeyUsageException", "KeyUnavailableException")
_CREDENTIALS = (
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "ExpiredTokenException",
    "ExpiredToken",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
)


@dataclass(frozen=True)
class AwsKms:
    """A symmetric key of AWS KMS.

    Attributes:
        key_id: key id, ARN, ``alias/NAME`` or the alias's ARN. An alias may be pointed at a new key only together with
            `ensconce key rewrap`.
        region: such as ``eu-central-1``.
        endpoint_url: another endpoint than the region's own, such as an interface VPC endpoint; None for that. ``http``
            only to this machine, because the root key travels with the question.
    """

    key_id: str
    region: str
    endpoint_url: str | None = None

    @property
    def sort(self) -> Sort:
        """AWS KMS."""
        return Sort.AWS_KMS

    def wrap(self, root: SecretBuffer, binding: Mapping[str, str]) -> str:
        """As :meth:`~ensconce.keys.unlock.KeyService.wrap`.

        Raises:
            InputError: ``kms.missing``: boto3 is not installed; ``kms.endpoint``, ``kms.credentials``,
                ``kms.permission``, ``kms.key``, ``kms.request``.
            UnreachableError: ``kms.unreachable``, ``kms.busy``, ``kms.answer``.
        """
        answer = self._ask("encrypt", Plaintext=bytes(root.view), EncryptionContext=dict(binding))
        blob = answer.get("CiphertextBlob")
        if not isinstance(blob, bytes) or not 0 < len(blob) <= 6144:
            raise _answer("ciphertext")
        return base64.b64encode(blob).decode()

    def unwrap(self, wrapped: str, binding: Mapping[str, str]) -> SecretBuffer:
        """As :meth:`~ensconce.keys.unlock.KeyService.unwrap`.

        Raises:
            InputError, UnreachableError: as :meth:`wrap`.
            IntegrityError: ``kms.ciphertext``: it is damaged, or was wrapped by another key or for something else.
        """
        try:
            blob = base64.b64decode(wrapped, validate=True)
        except binascii.Error:
            raise _damaged("not base64") from None
        answer = self._ask("decrypt", CiphertextBlob=blob, EncryptionContext=dict(binding))
        plaintext = answer.get("Plaintext")
        if not isinstance(plaintext, bytes) or len(plaintext) != ROOT_KEY_SIZE:
            raise _answer("root key")
        return SecretBuffer.of(plaintext)

    def _ask(self, operation: str, **arguments: object) -> dict[str, Any]:
        _check_endpoint(self.endpoint_url)
        boto3 = _boto3("boto3")
        failures = _boto3("botocore.exceptions")
        config = _boto3("botocore.config").Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": 3},
            # Another endpoint is named in ensconce.yaml, where the owner sees it, or not at all.
            ignore_configured_endpoint_urls=True,
        )
        # Every detail that it would say includes the root key, and the session's token.
        logging.getLogger("botocore").setLevel(logging.INFO)
        try:
            # A session of its own: credentials that were replaced meanwhile are found.
            session = boto3.session.Session(region_name=self.region)
            client = session.client("kms", endpoint_url=self.endpoint_url, config=config)
            answer: dict[str, Any] = getattr(client, operation)(KeyId=self.key_id, **arguments)
        except failures.ClientError as error:
            raise _refusal(error.response, self.key_id) from None
        except (failures.NoCredentialsError, failures.PartialCredentialsError, failures.ProfileNotFound) as error:
            raise _credentials(str(error)) from None
        except (failures.HTTPClientError, failures.ConnectionError) as error:
            raise UnreachableError(
                "kms.unreachable",
                f"AWS KMS in {self.region} does not answer",
                found=type(error).__name__,
                remedy="check the region, the endpoint and the way there",
            ) from None
        except (failures.BotoCoreError, ValueError) as error:
            raise InputError(
                "kms.request", "AWS KMS could not be asked", found=f"{type(error).__name__}: {error}"[:_SHOWN]
            ) from None
        return answer


def _check_endpoint(endpoint_url: str | None) -> None:
    if endpoint_url is None:
        return
    try:
        url = urllib.parse.urlsplit(endpoint_url)
        safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
    except ValueError:
        safe = False
    if not safe:
        raise InputError(
            "kms.endpoint",
            "this is no endpoint of AWS KMS",
            found=ascii(endpoint_url)[:_SHOWN],
            rule="https://HOST; http:// only to this machine, because the root key travels with the question",
            remedy="correct it in ensconce.yaml",
        )


def _boto3(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            "kms.missing",
            "the keystore is opened by AWS KMS, and boto3 is not installed",
            remedy="pip install 'ensconce[aws]'",
        ) from None


def _refusal(response: Mapping[str, Any], key_id: str) -> EnsconceError:
    error = response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    found = f"{code}: {message}"[:_SHOWN]
    if code in _DAMAGED:
        return _damaged(found)
    if code in _WRONG_KEY or code.startswith("KMSInvalidState"):
        return InputError(
            "kms.key", f"AWS KMS cannot use the key {key_id}", found=found, remedy="check key id, region and key state"
        )
    if code in ("AccessDeniedException", "AccessDenied"):
        return InputError(
            "kms.permission",
            "the credentials may not use the key, or the wrapped key is of one that they may not use",
            found=found,
            rule="kms:Encrypt and kms:Decrypt on this key",
            remedy="allow them in the key's policy, for this encryption context",
        )
    if code in _CREDENTIALS:
        return _credentials(found)
    if code in ("ThrottlingException", "LimitExceededException") or status == 429 or status >= 500:
        return UnreachableError("kms.busy", "AWS KMS cannot answer now", found=found, remedy="try again later")
    return InputError("kms.request", "AWS KMS refuses the question", found=found, remedy="use a symmetric key")


def _credentials(found: str) -> InputError:
    return InputError(
        "kms.credentials",
        "AWS does not accept the credentials, or there are none",
        found=found[:_SHOWN],
        remedy="give boto3 credentials: a role of the machine, or a profile in ~/.aws",
    )


def _damaged(found: str) -> IntegrityError:
    return IntegrityError(
        "kms.ciphertext",
        "AWS KMS cannot unwrap the keystore's root key: it is damaged, or was wrapped by another key or for something "
        "else",
        found=found,
        remedy="check key id and region; restore the keystore from a backup",
    )


def _answer(what: str) -> UnreachableError:
    return UnreachableError("kms.answer", f"AWS KMS gave no {what}", remedy="check the endpoint")
