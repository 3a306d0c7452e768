import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import codec, framing, schema
from broker.wire.errors import ErrorCode
from broker.wire.framing import RequestHeader, Splitter

EVERY_API = [
    (api.key, version) for api in schema.apis().values() for version in range(api.min, (api.unstable or api.max) + 1)
]


def frame(header: RequestHeader) -> bytes:
    message = codec.struct(f"{schema.api(header.api_key).name}Request")()
    return b"".join(framing.request(header, message))


@pytest.mark.parametrize("client_id", [None, "", "rdkafka", "größe"])
def test_every_api_and_version_passes_from_client_to_broker_and_back(client_id: str | None) -> None:
    for key, version in EVERY_API:
        header = RequestHeader(key, version, 42, client_id)
        data = frame(header)
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        found, body = framing.parse_request(memoryview(data)[4:])
        assert found == header
        framing.parse_body(found, body)
        answer = codec.struct(f"{schema.api(key).name}Response")()
        sent = b"".join(framing.response(header, answer))
        assert int.from_bytes(sent[:4], "big") == len(sent) - 4
        assert framing.parse_response(key, version, sent[4:]) == (42, answer)


def test_the_request_header_is_what_the_definitions_say() -> None:
    for version, header_version in ((7, 1), (9, 2)):
        data = frame(RequestHeader(3, version, 7, "id"))
        head = codec.struct("RequestHeader")(
            request_api_key=3, request_api_version=version, correlation_id=7, client_id="id"
        )
        assert data[4:].startswith(codec.encode(head, header_version))


def test_the_answer_to_api_versions_never_has_tags_in_its_header() -> None:
    header = RequestHeader(18, 3, 7, None)
    answer = codec.struct("ApiVersionsResponse")()
    sent = b"".join(framing.response(header, answer))
    assert sent[4:8] == b"\x00\x00\x00\x07"
    assert sent[8:] == codec.encode(answer, 3)


def test_an_api_versions_request_of_an_unknown_version_gets_an_answer_it_can_read() -> None:
    data = b"\x00\x12\x00\x63\x00\x00\x00\x07\x00\x01c" + b"whatever"
    with pytest.raises(framing.UnsupportedRequest) as caught:
        framing.parse_request(data)
    keys = [codec.struct("ApiVersionsResponse.ApiVersion")(api_key=18, min_version=0, max_version=4)]
    sent = b"".join(framing.api_versions_fallback(caught.value.header, keys))
    correlation_id, answer = framing.parse_response(18, 0, sent[4:])
    assert correlation_id == 7
    assert answer.error_code == ErrorCode.UNSUPPORTED_VERSION
    assert answer.api_keys == keys


@pytest.mark.parametrize(("key", "version"), [(4, 0), (999, 0), (-1, 0), (1, 3), (1, 19), (3, -1)])
def test_unknown_apis_and_versions_are_told_apart_from_broken_bytes(key: int, version: int) -> None:
    data = key.to_bytes(2, "big", signed=True) + version.to_bytes(2, "big", signed=True) + bytes(4) + b"\x00\x02me"
    with pytest.raises(framing.UnsupportedRequest) as caught:
        framing.parse_request(data)
    assert caught.value.header == RequestHeader(key, version, 0, "me")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x12\x00\x00\x00\x00\x00\x07\x00",
        b"\x00\x12\x00\x00\x00\x00\x00\x07\x00\x05abc",
        b"\x00\x12\x00\x00\x00\x00\x00\x07\xff\xfe",
        b"\x00\x12\x00\x00\x00\x00\x00\x07\x00\x02\xc0\x80",
        b"\x00\x12\x00\x03\x00\x00\x00\x07\xff\xff",
        b"\x00\x12\x00\x03\x00\x00\x00\x07\xff\xff\x01\x00\xff\xff\xff\xff\x0f",
        b"\x00\x12\x00\x03\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_broken_request_headers_are_refused(data: bytes) -> None:
    with pytest.raises(codec.Malformed):
        framing.parse_request(data)


@pytest.mark.parametrize(
    "data", [b"", b"\x00\x00\x00", b"\x00\x00\x00\x01", b"\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff"]
)
def test_broken_response_headers_are_refused(data: bytes) -> None:
    with pytest.raises(codec.Malformed):
        framing.parse_response(12, 4, data)


def test_tags_in_a_request_header_are_skipped() -> None:
    header = RequestHeader(12, 4, 7, "c")
    data = frame(header)[4:]
    tagged = data[:11] + b"\x01\x09\x02zz" + data[12:]
    found, body = framing.parse_request(tagged)
    assert found == header
    framing.parse_body(found, body)


@given(st.lists(st.binary(max_size=30), max_size=8), st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_frames_are_cut_from_the_stream_however_it_arrives(frames: list[bytes], steps: list[int]) -> None:
    stream = b"".join(len(each).to_bytes(4, "big") + each for each in frames)
    splitter = Splitter(max_size=30)
    found: list[bytes] = []
    position = turn = 0
    while position < len(stream):
        step = steps[turn % len(steps)]
        found += [bytes(each) for each in splitter.feed(stream[position : position + step])]
        position, turn = position + step, turn + 1
    assert found == frames
    assert splitter.held == 0


def test_a_frame_that_lies_whole_in_the_data_is_a_view_of_it() -> None:
    data = b"\x00\x00\x00\x03abc\x00\x00\x00\x00"
    first, second = Splitter(10).feed(data)
    assert first.obj is data
    assert (bytes(first), bytes(second)) == (b"abc", b"")


@pytest.mark.parametrize("length", [b"\x00\x00\x00\x0b", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_frame_of_a_forbidden_size_is_refused_before_it_is_stored(length: bytes, cut: int) -> None:
    splitter = Splitter(max_size=10)
    with pytest.raises(framing.FrameTooLarge):
        for part in (length[:cut], length[cut:] + b"x"):
            splitter.feed(part)
    assert splitter.held <= 4


def test_nothing_is_reserved_for_what_is_only_declared() -> None:
    splitter = Splitter(max_size=1 << 30)
    splitter.feed(b"\x3f\xff\xff\xffabc")
    assert splitter.held == 7
