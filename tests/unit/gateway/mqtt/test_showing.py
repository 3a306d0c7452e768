"""Packets shown to people: cut out of any stream, decoded, without a secret."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.mqtt import packets
from gateway.mqtt import properties as p
from gateway.mqtt.sender import publish_frame
from gateway.mqtt.showing import EXCERPT, KEPT, Frames, excerpt, show
from gateway.ports import Message
from tests.fakes import mqtt_device


def shown(frame: bytes, protocol: int = 4) -> dict[str, object]:
    ((head, size),) = Frames().feed(frame)
    return show(head, size, protocol)


@given(st.lists(st.tuples(st.integers(1, 15), st.binary(max_size=300)), max_size=12), st.data())
def test_a_stream_is_cut_at_packets_however_it_arrives(contents: list[tuple[int, bytes]], data: st.DataObject) -> None:
    frames = [packets.packet(kind << 4, body) for kind, body in contents]
    stream, found, reader = b"".join(frames), [], Frames()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += list(reader.feed(stream[:size]))
        stream = stream[size:]
    assert found == [(frame[:KEPT], len(frame)) for frame in frames]


def test_of_a_long_packet_only_the_beginning_is_kept() -> None:
    frame = publish_frame(Message("a/b", b"x" * 100_000, 0), 0x30, 0, None)
    reader = Frames()
    found = [each for start in range(0, len(frame), 999) for each in reader.feed(frame[start : start + 999])]
    assert found == [(frame[:KEPT], len(frame))]
    told = show(*found[0], 4)
    assert told["payload_size"] == 100_000
    assert told["payload"] == "x" * EXCERPT


@given(st.binary(min_size=2, max_size=200), st.sampled_from([3, 4, 5]))
def test_no_bytes_make_it_fail(data: bytes, protocol: int) -> None:
    for head, size in Frames().feed(data):
        assert show(head, size, protocol)["size"] == size


def test_a_publish_is_told_with_all_that_is_seen_on_the_wire() -> None:
    fields = p.property_fields({p.CONTENT_TYPE: "json", p.CORRELATION_DATA: b"secret", p.USER_PROPERTY: [("k", "v")]})
    told = shown(publish_frame(Message("plant/7", b'{"a": 1}', 1), 0x3B, 12, fields), 5)
    assert told["type"] == "PUBLISH"
    assert (told["topic"], told["qos"], told["dup"], told["retain"], told["id"]) == ("plant/7", 1, True, True, 12)
    assert (told["payload"], told["payload_size"]) == ('{"a": 1}', 8)
    assert told["properties"] == {"content type": "json", "correlation data": "6 bytes", "user: k": "v"}
    assert "secret" not in str(told)


def test_other_packets_are_told_by_ids_filters_and_codes() -> None:
    assert shown(packets.encode_acknowledgement(p.PUBACK, 7, 0x87, 5), 5) == {
        "type": "PUBACK",
        "size": 5,
        "id": 7,
        "codes": ["0x87"],
    }
    told = shown(packets.packet(0x82, b"\x00\x05" + p.text("a/+") + b"\x01" + p.text("b") + b"\x02"))
    assert (told["id"], told["filters"]) == (5, ["a/+ (QoS 1)", "b (QoS 2)"])
    assert shown(packets.encode_suback(5, [1, 0x80], 4))["codes"] == ["0x01", "0x80"]
    told = shown(packets.encode_disconnect(0x8E, {p.REASON_STRING: "taken over"}), 5)
    assert (told["codes"], told["properties"]) == (["0x8e"], {"reason": "taken over"})
    assert shown(packets.PINGRESP) == {"type": "PINGRESP", "size": 2}


def test_secrets_stay_out() -> None:
    connect = mqtt_device.connect("c", username="u", password=b"top secret", will=("w", b"will secret", 1, False))
    assert "secret" not in str(shown(connect))
    told = shown(packets.encode_auth(0x18, "SCRAM-SHA-256", b"auth secret"), 5)
    assert told["properties"] == {"authentication method": "SCRAM-SHA-256"}
    assert "secret" not in str(told)


def test_an_excerpt_is_text_where_it_is_text() -> None:
    assert excerpt("grüß".encode()) == "grüß"
    assert excerpt("grüß".encode()[:-1]) == "grü"
    assert excerpt(b"\x00\x01\xff") == "00 01 ff"
    assert excerpt(b"\x1b[31m") == "1b 5b 33 31 6d"
