"""What goes wrong, as an HTTP status and a problem document (RFC 9457).

Beside the RFC's members a document has `reason`: a slug for programs, from a bounded set.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus

from gateway.ports import NotAcknowledged, Refused

Header = tuple[bytes, bytes]
_CHALLENGES: tuple[Header, ...] = (
    (b"WWW-Authenticate", b'Basic realm="sluice", charset="UTF-8"'),
    (b"WWW-Authenticate", b'Bearer realm="sluice"'),
)

# MQTT 5 reason codes of the engine's refusals
_STATUS = {
    0x85: (HTTPStatus.FORBIDDEN, "client-id"),
    0x86: (HTTPStatus.UNAUTHORIZED, "credentials"),
    0x87: (HTTPStatus.FORBIDDEN, "denied"),
    0x88: (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"),
    0x8A: (HTTPStatus.FORBIDDEN, "banned"),
    0x90: (HTTPStatus.BAD_REQUEST, "topic"),
    0x96: (HTTPStatus.TOO_MANY_REQUESTS, "rate"),
    0x97: (HTTPStatus.TOO_MANY_REQUESTS, "in-flight"),
    0x9D: (HTTPStatus.SERVICE_UNAVAILABLE, "unavailable"),
    0x9F: (HTTPStatus.TOO_MANY_REQUESTS, "guesses"),
}


class Problem(Exception):
    """The request gets this answer instead of the one it hoped for."""

    def __init__(self, status: HTTPStatus, reason: str, detail: str, *headers: Header, why: str = "") -> None:
        """`why`: of the engine's refusal behind it (`gateway.why`)."""
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.why = why
        self.headers = _CHALLENGES + headers if status == HTTPStatus.UNAUTHORIZED else headers

    @property
    def body(self) -> bytes:
        """The document."""
        found = {"title": self.status.phrase, "status": int(self.status), "detail": self.detail, "reason": self.reason}
        return json.dumps(found, ensure_ascii=False).encode("utf-8", "replace")


def bad(reason: str, detail: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, reason, detail)


def unauthorised(detail: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, "credentials", detail)


def retry_after(seconds: float) -> Header:
    """Whole seconds, at least one."""
    return b"Retry-After", b"%d" % max(1, math.ceil(seconds))


def unavailable(detail: str) -> Problem:
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, retry_after(1.0))


def unknown(detail: str) -> Problem:
    """Nobody can say whether the message is stored."""
    return Problem(HTTPStatus.GATEWAY_TIMEOUT, "unknown", detail, retry_after(1.0))


def problem_of(failure: Exception) -> Problem:
    """What a receipt's failure is in HTTP's terms."""
    if isinstance(failure, Refused):
        status, reason = _STATUS.get(failure.code, (HTTPStatus.FORBIDDEN, "denied"))
        wait = status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        headers = (retry_after(failure.after),) if wait else ()
        return Problem(status, reason, failure.reason or status.phrase, *headers, why=failure.why)
    if isinstance(failure, NotAcknowledged):
        return unknown(f"{failure}; the message may be stored or not: send it again, with the same Sluice-Message-Id")
    raise failure
