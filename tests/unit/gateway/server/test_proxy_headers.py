from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from gateway.server.proxy import FIXED, MAX_REST, SIGNATURE, BadProxyHeader, parse, remaining


@given(st.binary(min_size=4, max_size=4), st.binary(max_size=200))
def test_random_headers_are_read_or_refused(tail: bytes, rest: bytes) -> None:
    with contextlib.suppress(BadProxyHeader):
        assert 0 <= remaining(SIGNATURE + tail) <= MAX_REST
        header = parse(SIGNATURE + tail, rest)
        assert header.address is None or ":" in header.address


@given(st.binary(min_size=FIXED, max_size=FIXED))
def test_without_the_signature_nothing_is_believed(fixed: bytes) -> None:
    with contextlib.suppress(BadProxyHeader):
        remaining(fixed)
        assert fixed.startswith(SIGNATURE)


def test_a_name_of_an_unverified_certificate_is_not_believed() -> None:
    fixed = SIGNATURE + b"\x21\x11\x00\x00"
    addresses = bytes(12)
    name = b"\x22\x00\x03eve"
    for flags, verify in ((b"\x03", b"\x00\x00\x00\x01"), (b"\x01", b"\x00\x00\x00\x00")):
        field = flags + verify + name
        header = parse(fixed, addresses + b"\x20" + len(field).to_bytes(2, "big") + field)
        assert header.common_name is None and header.tls
