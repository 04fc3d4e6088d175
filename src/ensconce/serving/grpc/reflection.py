"""The standard reflection service, by which tools learn what a server serves (grpc/doc/server-reflection.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message_factory import GetMessageClass

from ensconce.serving.grpc.call import Streaming, Unary
from ensconce.serving.grpc.messages import parse, serialize
from ensconce.tfserving.messages import POOL
from ensconce.tfserving.refusal import Code

__all__ = ["reflection_methods", "reflection_service"]


def reflection_service(version: str) -> str:
    """The service's name in one of its versions, v1 and v1alpha."""
    return f"grpc.reflection.{version}.ServerReflection"


def reflection_methods(version: str, services: tuple[str, ...]) -> dict[str, Unary | Streaming]:
    """The service's one method by name.

    Args:
        version: v1 or v1alpha, which differ in nothing but their names.
        services: what is served.
    """
    package = f"grpc.reflection.{version}"
    request_class: Any = GetMessageClass(POOL.FindMessageTypeByName(f"{package}.ServerReflectionRequest"))
    response_class: Any = GetMessageClass(POOL.FindMessageTypeByName(f"{package}.ServerReflectionResponse"))

    async def answer(messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for data in messages:
            request = parse(request_class, data)
            response = response_class(valid_host=request.host, original_request=request)
            _fill(response, request, services)
            yield serialize(response)

    return {"ServerReflectionInfo": Streaming(answer)}


def _fill(response: Any, request: Any, services: tuple[str, ...]) -> None:
    match request.WhichOneof("message_request"):
        case "list_services":
            for name in services:
                response.list_services_response.service.add(name=name)
        case "file_by_filename":
            _describe(response, lambda: POOL.FindFileByName(request.file_by_filename))
        case "file_containing_symbol":
            _describe(response, lambda: POOL.FindFileContainingSymbol(request.file_containing_symbol))
        case "all_extension_numbers_of_type":
            name = request.all_extension_numbers_of_type
            try:
                POOL.FindMessageTypeByName(name)
            except KeyError:
                _not_found(response)
            else:
                response.all_extension_numbers_response.base_type_name = name  # proto3: there are none
        case "file_containing_extension":
            _not_found(response)
        case _:
            response.error_response.error_code = int(Code.INVALID_ARGUMENT)
            response.error_response.error_message = "Invalid request"


def _describe(response: Any, find: Any) -> None:
    try:
        file = find()
    except KeyError:
        _not_found(response)
        return
    seen: dict[str, bytes] = {}
    _collect(file, seen)
    response.file_descriptor_response.file_descriptor_proto.extend(seen.values())


def _collect(file: FileDescriptor, seen: dict[str, bytes]) -> None:
    """The file itself first, then what it needs."""
    if file.name not in seen:
        seen[file.name] = file.serialized_pb
        for each in file.dependencies:
            _collect(each, seen)


def _not_found(response: Any) -> None:
    response.error_response.error_code = int(Code.NOT_FOUND)
    response.error_response.error_message = "Not found"
