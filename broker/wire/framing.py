"""Frames and headers: 4-byte length, request header v1/v2, response header v0/v1 (KIP-482).

A *frame* here is what follows the 4-byte length. Flexible versions use request header v2 and response header v1;
the one exception is ApiVersions, whose response always has header v0, so that a client can read the answer to a
version the broker doesn't have (KIP-511).
"""

from collections.abc import Sequence
from typing import NamedTuple

from broker.wire.codec import Buffer, Malformed, Struct


class RequestHeader(NamedTuple):
    """What precedes every request body."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None


class UnsupportedRequest(Exception):
    """A request for an API or a version that the definitions don't have.

    `header` is what could be read. Answer ApiVersions with `api_versions_fallback`; close the connection otherwise,
    as Kafka does.
    """

    def __init__(self, header: RequestHeader) -> None:
        super().__init__(f"API key {header.api_key} version {header.api_version}")
        self.header = header


class FrameTooLarge(Malformed):
    """A declared length that is negative or beyond the limit."""


class Splitter:
    """Cuts a byte stream into frames. Holds at most one incomplete frame; never reserves what is only declared."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size

    def feed(self, data: bytes) -> list[memoryview]:
        """Frames completed by `data`, as views (into `data` itself where they lie in it whole).

        Raises FrameTooLarge; the frames before the bad one are lost with the connection.
        """
        raise NotImplementedError


def parse_request(frame: Buffer) -> tuple[RequestHeader, memoryview]:
    """Header and body. Raises `Malformed` and `UnsupportedRequest`."""
    raise NotImplementedError


def parse_body(header: RequestHeader, body: memoryview) -> Struct:
    """The request message of this header; raises `Malformed`."""
    raise NotImplementedError


def response(header: RequestHeader, message: Struct) -> list[Buffer]:
    """Length, response header and body, as buffers to write in this order."""
    raise NotImplementedError


def response_bytes(header: RequestHeader, body: Sequence[Buffer]) -> list[Buffer]:
    """Like `response`, around a body that is already encoded (cached bytes)."""
    raise NotImplementedError


def api_versions_fallback(header: RequestHeader, api_keys: Sequence[Struct]) -> list[Buffer]:
    """The answer to an ApiVersions request of an unknown version: version 0 with UNSUPPORTED_VERSION (KIP-511).

    api_keys: `ApiVersionsResponse.ApiVersion` structs.
    """
    raise NotImplementedError


def request(header: RequestHeader, message: Struct) -> list[Buffer]:
    """Length, request header and body: the client's side."""
    raise NotImplementedError


def parse_response(api_key: int, api_version: int, frame: Buffer) -> tuple[int, Struct]:
    """Correlation id and response message: the client's side. Raises `Malformed`."""
    raise NotImplementedError
