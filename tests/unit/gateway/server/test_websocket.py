from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.websocket import BadFrame, BadUpgrade, Frames, Upgrade, binary_head

MASK = st.binary(min_size=4, max_size=4)


def frame(payload: bytes, mask: bytes = b"\x01\x02\x03\x04", *, opcode: int = 2, final: bool = True) -> bytes:
    head = binary_head(len(payload))
    head = bytes([(0x80 if final else 0) | opcode, head[1] | 0x80]) + head[2:]
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@given(st.lists(st.tuples(st.binary(max_size=300), MASK), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_payloads_arrive_whole_however_frames_and_reads_are_cut(
    parts: list[tuple[bytes, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(frame(payload, mask) for payload, mask in parts)
    frames, arrived, position, turn = Frames(), b"", 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        payload, answers = frames.feed(stream[position : position + size])
        arrived += payload
        assert answers == b""
        position, turn = position + size, turn + 1
    assert arrived == b"".join(payload for payload, _ in parts)


def test_large_payloads_are_handed_on_as_they_come() -> None:
    frames = Frames()
    data = frame(b"x" * 100_000)
    first, _ = frames.feed(data[:50_000])
    assert len(first) > 49_000
    second, _ = frames.feed(data[50_000:])
    assert first + second == b"x" * 100_000


def test_a_frame_that_is_not_masked_is_refused() -> None:
    with pytest.raises(BadFrame, match="masked"):
        Frames().feed(b"\x82\x05hello and more")


def test_control_frames_come_between_fragments_and_are_answered() -> None:
    frames = Frames()
    sent = frame(b"ab", final=False) + frame(b"ping", opcode=9) + frame(b"cd", opcode=0)
    assert frames.feed(sent) == (b"abcd", b"\x8a\x04ping")
    assert frames.feed(frame(b"\x03\xe9bye", opcode=8)) == (b"", b"\x88\x02\x03\xe9")
    assert frames.closing


@given(st.binary(max_size=100))
def test_random_bytes_are_payload_or_refused(data: bytes) -> None:
    frames = Frames()
    try:
        payload, _ = frames.feed(data)
    except BadFrame:
        return
    assert len(payload) <= len(data)


@given(st.binary(max_size=300))
def test_random_requests_are_refused_or_waited_for(data: bytes) -> None:
    upgrade = Upgrade("/mqtt")
    try:
        assert upgrade.feed(data) is None
    except BadUpgrade as error:
        assert error.answer.startswith(b"HTTP/1.1 4")


def test_a_request_that_never_ends_is_not_kept() -> None:
    upgrade = Upgrade("/mqtt")
    upgrade.feed(b"GET /mqtt HTTP/1.1\r\n")
    with pytest.raises(BadUpgrade):
        for _ in range(1000):
            upgrade.feed(b"X-More: 1234567890\r\n")
