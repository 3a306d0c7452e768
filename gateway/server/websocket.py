"""The server side of WebSocket (RFC 6455) without input and output, no more of it than MQTT needs (MQTT 5, 6).

`Upgrade` reads one HTTP request of at most `MAX_REQUEST` bytes and says what to answer. `Frames` turns bytes into the
payload of binary messages (their borders mean nothing to MQTT) and the control frames to answer. No extension is
offered, so no compressed frame can come. Memory: at most one header, or one control frame, is kept between reads;
payloads are handed on as they arrive.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

MAX_REQUEST: Final = 8192
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class BadUpgrade(Exception):
    """The HTTP request is no WebSocket upgrade to MQTT; `answer` is what to send before closing."""

    def __init__(self, reason: str, status: str = "400 Bad Request", headers: str = "") -> None:
        super().__init__(reason)
        body = reason.encode("ascii", "replace") + b"\n"
        self.answer = (
            f"HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        ).encode() + body


class BadFrame(Exception):
    """The peer broke RFC 6455; `code` is for the close frame."""

    def __init__(self, reason: str, code: int = 1002) -> None:
        super().__init__(reason)
        self.code = code


class Upgrade:
    """One opening handshake. Feed it until `feed` gives the answer; what came behind the request is in `rest`."""

    __slots__ = ("_data", "_path", "rest")

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = bytearray()
        self.rest = b""

    def feed(self, chunk: bytes) -> bytes | None:
        """None until the request is complete, then the 101 answer. Raises `BadUpgrade`."""
        start = max(0, len(self._data) - 3)
        self._data += chunk
        end = self._data.find(b"\r\n\r\n", start)
        if end < 0:
            if len(self._data) > MAX_REQUEST:
                raise BadUpgrade("request too large", "431 Request Header Fields Too Large")
            if not b"GET ".startswith(bytes(self._data[:4])):
                raise BadUpgrade("not a WebSocket request")
            return None
        if end > MAX_REQUEST:
            raise BadUpgrade("request too large", "431 Request Header Fields Too Large")
        self.rest = bytes(self._data[end + 4 :])
        return self._answer(bytes(self._data[:end]))

    def _answer(self, request: bytes) -> bytes:
        first, *lines = request.split(b"\r\n")
        parts = first.split(b" ")
        if len(parts) != 3 or parts[0] != b"GET" or parts[2] != b"HTTP/1.1":
            raise BadUpgrade("not a WebSocket request")
        if parts[1].split(b"?")[0] != self._path.encode():
            raise BadUpgrade("nothing here", "404 Not Found")
        headers: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise BadUpgrade("a malformed header")
            name = name.lower()
            value = value.strip()
            headers[name] = headers[name] + b"," + value if name in headers else value
        if not _has(headers, b"upgrade", b"websocket") or not _has(headers, b"connection", b"upgrade"):
            raise BadUpgrade("not a WebSocket request", "426 Upgrade Required", "Upgrade: websocket\r\n")
        if headers.get(b"sec-websocket-version") != b"13":
            raise BadUpgrade("WebSocket version 13 only", "426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n")
        key = headers.get(b"sec-websocket-key", b"")
        try:
            valid = len(base64.b64decode(key, validate=True)) == 16
        except binascii.Error:
            valid = False
        if not valid:
            raise BadUpgrade("no valid Sec-WebSocket-Key")
        offered = [part.strip() for part in headers.get(b"sec-websocket-protocol", b"").split(b",")]
        chosen = next((part for part in offered if part in (b"mqtt", b"mqttv3.1")), None)
        if chosen is None:
            raise BadUpgrade("the subprotocol must be mqtt")
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: " + chosen + b"\r\n\r\n"
        )


def _has(headers: dict[bytes, bytes], name: bytes, token: bytes) -> bool:
    return token in [part.strip().lower() for part in headers.get(name, b"").split(b",")]


class Frames:
    """Frames from a client. `feed` gives (payload bytes, answer bytes); `closing` is True after a close frame."""

    __slots__ = ("_control", "_head", "_in_message", "_left", "_mask", "_opcode", "closing")

    def __init__(self) -> None:
        self._head = b""  # an incomplete frame header
        self._left = 0  # payload bytes of the current frame yet to come
        self._mask = b""
        self._opcode = 0
        self._control = b""  # payload so far of a control frame
        self._in_message = False
        self.closing = False

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Raises `BadFrame`."""
        data = self._head + chunk if self._head else chunk
        self._head = b""
        position, end = 0, len(data)
        payload: list[bytes] = []
        answers: list[bytes] = []
        while not self.closing:
            if not self._mask:
                size = self._header(data, position, end)
                if size == 0:
                    self._head = data[position:]
                    break
                position += size
            take = min(self._left, end - position)
            piece = _unmask(data[position : position + take], self._mask) if take else b""
            position += take
            self._left -= take
            if self._left:
                self._mask = self._mask[take % 4 :] + self._mask[: take % 4]
            else:
                self._mask = b""
            if self._opcode >= _CLOSE:
                self._control += piece
                if not self._mask:
                    answers.append(self._controlled())
            elif piece:
                payload.append(piece)
            if self._left:
                break
        return b"".join(payload), b"".join(answers)

    def _header(self, data: bytes, position: int, end: int) -> int:
        """Read a frame header: its size, 0 while it is incomplete."""
        if end - position < 2:
            return 0
        first, second = data[position], data[position + 1]
        opcode, length, size = first & 0x0F, second & 0x7F, 6
        if first & 0x70:
            raise BadFrame("reserved bits are set")
        if not second & 0x80:
            raise BadFrame("a client's frame is not masked")
        if opcode >= _CLOSE:
            if opcode > _PONG or not first & 0x80 or length > 125:
                raise BadFrame("a malformed control frame")
        elif opcode == _TEXT:
            raise BadFrame("MQTT is binary", 1003)
        elif opcode not in (_CONTINUATION, _BINARY) or (opcode == _CONTINUATION) != self._in_message:
            raise BadFrame("unexpected opcode")
        if length == 126:
            size = 8
        elif length == 127:
            size = 14
        if end - position < size:
            return 0
        if length == 126:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
        elif length == 127:
            length = int.from_bytes(data[position + 2 : position + 10], "big")
            if length >> 63:
                raise BadFrame("an impossible length")
        if opcode < _CLOSE:
            self._in_message = not first & 0x80
        self._opcode = opcode
        self._left = length
        self._mask = data[position + size - 4 : position + size]
        return size

    def _controlled(self) -> bytes:
        payload, self._control = self._control, b""
        if self._opcode == _PING:
            return bytes((0x80 | _PONG, len(payload))) + payload
        if self._opcode == _CLOSE:
            self.closing = True
            return close_frame(int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000)
        return b""


def _unmask(piece: bytes, mask: bytes) -> bytes:
    size = len(piece)
    whole = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(piece, "little") ^ int.from_bytes(whole, "little")).to_bytes(size, "little")


def binary_head(size: int) -> bytes:
    """The header of an unmasked, final binary frame of that size."""
    if size < 126:
        return bytes((0x82, size))
    if size < 0x10000:
        return b"\x82\x7e" + size.to_bytes(2, "big")
    return b"\x82\x7f" + size.to_bytes(8, "big")


def close_frame(code: int) -> bytes:
    return b"\x88\x02" + (code & 0xFFFF).to_bytes(2, "big")
