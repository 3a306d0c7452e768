"""Frames and headers: 4-byte length, request header v1/v2, response header v0/v1 (KIP-482).

A *frame* here is what follows the 4-byte length. Flexible versions use request header v2 and response header v1;
the one exception is ApiVersions, whose response always has header v0, so that a client can read the answer to a
version the broker doesn't have (KIP-511).
"""

from collections.abc import Sequence
from struct import Struct as Packer
from struct import error as packing_error
from typing import NamedTuple

from broker.wire import codec, schema
from broker.wire.codec import Buffer, Malformed, Struct
from broker.wire.decoder import BadLength, skip_tags
from broker.wire.errors import ErrorCode
from broker.wire.varint import VarintTooLong

API_VERSIONS = 18

_head = Packer(">hhih").unpack_from
_length = Packer(">i").unpack_from
_frame_v0 = Packer(">ii").pack
_frame_v1 = Packer(">iiB").pack
_request_head = Packer(">ihhih").pack
_NO_TAGS = b"\x00"


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

    __slots__ = ("_partial", "max_size")

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._partial = bytearray()  # the frame that isn't complete, its length included

    @property
    def held(self) -> int:
        """Bytes kept of a frame that isn't complete yet."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[memoryview]:
        """Frames completed by `data`, as views (into `data` itself where they lie in it whole).

        Raises FrameTooLarge; the frames before the bad one are lost with the connection.
        """
        frames: list[memoryview] = []
        view = memoryview(data)
        position = self._complete(view, frames) if self._partial else 0
        end = len(data)
        while end - position >= 4:
            after = position + 4 + self._size(data, position)
            if after > end:
                break
            frames.append(view[position + 4 : after])
            position = after
        if position < end:
            self._partial += view[position:]
        return frames

    def _complete(self, data: memoryview, frames: list[memoryview]) -> int:
        """Add to the incomplete frame what it lacks; returns the position after it."""
        partial = self._partial
        position = 0
        if len(partial) < 4:
            position = min(4 - len(partial), len(data))
            partial += data[:position]
            if len(partial) < 4:
                return position
        size = 4 + self._size(partial, 0)
        piece = data[position : position + size - len(partial)]
        partial += piece
        if len(partial) == size:
            frames.append(memoryview(partial)[4:])
            self._partial = bytearray()
        return position + len(piece)

    def _size(self, data: Buffer, position: int) -> int:
        size: int = _length(data, position)[0]
        if not 0 <= size <= self.max_size:
            raise FrameTooLarge(f"frame of {size} bytes, allowed are {self.max_size}")
        return size


def parse_request(frame: Buffer) -> tuple[RequestHeader, memoryview]:
    """Header and body. Raises `Malformed` and `UnsupportedRequest`."""
    view = memoryview(frame)
    try:
        key, version, correlation_id, size = _head(view, 0)
        position = 10
        if size >= 0:
            position += size
            if position > len(view):
                raise Malformed(f"client id of {size} bytes where {len(view) - 10} are left")
            client_id = str(view[10:position], "utf-8")
        elif size == -1:
            client_id = None
        else:
            raise Malformed(f"client id of {size} bytes")
        header = RequestHeader(key, version, correlation_id, client_id)
        flexible_from = _flexible_from(header)
        if version >= flexible_from:
            if view[position] == 0:
                position += 1
            else:
                position = skip_tags(view, position, len(view))
    except (packing_error, IndexError, UnicodeDecodeError, BadLength, VarintTooLong) as error:
        raise Malformed(f"request header: {error}") from None
    return header, view[position:]


def parse_body(header: RequestHeader, body: memoryview) -> Struct:
    """The request message of this header; raises `Malformed`.

    Bytes after the message are ignored, as Kafka ignores them: librdkafka 2.16 sends one too many with
    AlterUserScramCredentials 0 and three with a Metadata 13 that names topics.
    """
    return codec.decode(_apis[header.api_key].request, header.api_version, body, exact=False)


def response(header: RequestHeader, message: Struct) -> list[Buffer]:
    """Length, response header and body, as buffers to write in this order."""
    return response_bytes(header, codec.encode_vectored(message, header.api_version))


def response_bytes(header: RequestHeader, body: Sequence[Buffer]) -> list[Buffer]:
    """Like `response`, around a body that is already encoded (cached bytes)."""
    size = sum(map(len, body))
    key, version, correlation_id, _ = header
    if version >= _apis[key].response_flexible_from:
        head = _frame_v1(size + 5, correlation_id, 0)
    else:
        head = _frame_v0(size + 4, correlation_id)
    first = body[0] if body else b""
    if len(first) < 16384:
        return [head + first, *body[1:]]
    return [head, *body]


def api_versions_fallback(header: RequestHeader, api_keys: Sequence[Struct]) -> list[Buffer]:
    """The answer to an ApiVersions request of an unknown version: version 0 with UNSUPPORTED_VERSION (KIP-511).

    api_keys: `ApiVersionsResponse.ApiVersion` structs.
    """
    answer = codec.struct("ApiVersionsResponse")(error_code=ErrorCode.UNSUPPORTED_VERSION, api_keys=list(api_keys))
    return response(header._replace(api_key=API_VERSIONS, api_version=0), answer)


def request(header: RequestHeader, message: Struct) -> list[Buffer]:
    """Length, request header and body: the client's side."""
    return request_bytes(header, codec.encode_vectored(message, header.api_version))


def request_bytes(header: RequestHeader, body: Sequence[Buffer]) -> list[Buffer]:
    """Like `request`, around a body that is already encoded."""
    key, version, correlation_id, client_id = header
    name = b"" if client_id is None else client_id.encode()
    flexible = version >= _apis[key].flexible_from
    size = 10 + len(name) + flexible + sum(map(len, body))
    head = _request_head(size, key, version, correlation_id, -1 if client_id is None else len(name))
    start = b"".join((head, name, _NO_TAGS if flexible else b""))
    first = body[0] if body else b""
    if len(first) < 16384:
        return [start + first, *body[1:]]
    return [start, *body]


def parse_response(api_key: int, api_version: int, frame: Buffer) -> tuple[int, Struct]:
    """Correlation id and response message: the client's side. Raises `Malformed`."""
    view = memoryview(frame)
    names = _apis[api_key]
    try:
        (correlation_id,) = _length(view, 0)
        position = 4
        if api_version >= names.response_flexible_from:
            position = skip_tags(view, position, len(view))
    except (packing_error, IndexError, BadLength, VarintTooLong) as error:
        raise Malformed(f"response header: {error}") from None
    return correlation_id, codec.decode(names.response, api_version, view[position:])


class _Names(NamedTuple):
    request: str
    response: str
    min: int
    max: int
    flexible_from: int
    response_flexible_from: int


class _Apis(dict[int, _Names]):
    """What framing needs to know of each API, read from the schema on first use."""

    def __missing__(self, key: int) -> _Names:
        api = schema.api(key)
        names = self[key] = _Names(
            f"{api.name}Request",
            f"{api.name}Response",
            api.min,
            api.max if api.unstable is None else api.unstable,
            api.flexible_from,
            schema.MAX_VERSION if key == API_VERSIONS else api.flexible_from,
        )
        return names


_apis = _Apis()


def _flexible_from(header: RequestHeader) -> int:
    try:
        names = _apis[header.api_key]
    except schema.UnknownMessage:
        raise UnsupportedRequest(header) from None
    if not names.min <= header.api_version <= names.max:
        raise UnsupportedRequest(header)
    return names.flexible_from
