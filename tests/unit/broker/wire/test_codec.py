import struct as packing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import codec, decoder, encoder, schema, varint

PartitionData = codec.struct("FetchResponse.PartitionData")
FetchableTopic = codec.struct("FetchResponse.FetchableTopicResponse")
FetchResponse = codec.struct("FetchResponse")
Heartbeat = codec.struct("HeartbeatRequest")


def test_a_constructor_fills_in_the_schemas_defaults() -> None:
    partition = PartitionData()
    assert partition.last_stable_offset == -1
    assert partition.records is None
    assert partition.current_leader is None
    assert FetchResponse().responses == []
    assert FetchableTopic().topic_id == bytes(16)
    assert codec.struct("MetadataRequest")().allow_auto_topic_creation is True
    assert codec.struct("ListOffsetsRequest")().isolation_level == 0


def test_default_lists_and_structs_are_not_shared() -> None:
    one, other = FetchResponse(), FetchResponse()
    one.responses.append(1)
    assert other.responses == []
    share = codec.struct("ShareFetchResponse.PartitionData")
    assert share().current_leader is not share().current_leader


def test_a_class_is_made_once_and_refuses_fields_it_does_not_have() -> None:
    assert codec.struct("FetchResponse") is FetchResponse
    with pytest.raises(AttributeError):
        FetchResponse().no_such_field = 1
    with pytest.raises(TypeError):
        FetchResponse(no_such_field=1)


def test_messages_are_equal_by_value_and_say_what_they_hold() -> None:
    assert Heartbeat(group_id="g") == Heartbeat(group_id="g")
    assert Heartbeat(group_id="g") != Heartbeat(group_id="h")
    assert Heartbeat() != FetchResponse()
    assert "group_id='g'" in repr(Heartbeat(group_id="g"))


def test_a_version_drops_the_fields_it_lacks_and_reads_their_default() -> None:
    topic = FetchableTopic(topic="name", topic_id=b"i" * 16)
    old = codec.decode("FetchResponse", 12, codec.encode(FetchResponse(responses=[topic]), 12))
    new = codec.decode("FetchResponse", 13, codec.encode(FetchResponse(responses=[topic]), 13))
    assert (old.responses[0].topic, old.responses[0].topic_id) == ("name", bytes(16))
    assert (new.responses[0].topic, new.responses[0].topic_id) == ("", b"i" * 16)


def test_records_are_a_view_of_the_frame() -> None:
    request = codec.struct("ProduceRequest")(
        topic_data=[
            codec.struct("ProduceRequest.TopicProduceData")(
                name="t",
                partition_data=[codec.struct("ProduceRequest.PartitionProduceData")(records=b"batch")],
            )
        ]
    )
    frame = bytearray(codec.encode(request, 9))
    found = codec.decode("ProduceRequest", 9, frame).topic_data[0].partition_data[0].records
    assert isinstance(found, memoryview)
    frame[frame.index(b"batch")] = ord("c")
    assert found == b"catch"


def test_records_may_be_given_as_a_list_of_slices() -> None:
    whole = FetchResponse(responses=[FetchableTopic(partitions=[PartitionData(records=b"one" + b"two")])])
    parts = FetchResponse(responses=[FetchableTopic(partitions=[PartitionData(records=[b"one", memoryview(b"two")])])])
    assert codec.encode(parts, 16) == codec.encode(whole, 16)


def test_large_records_pass_through_a_vectored_encoding_uncopied() -> None:
    large = bytes(10_000)
    message = FetchResponse(
        responses=[
            FetchableTopic(
                partitions=[
                    PartitionData(records=[large, b"tail"]),
                    PartitionData(records=b"small"),
                    PartitionData(records=large),
                ]
            )
        ]
    )
    buffers = codec.encode_vectored(message, 16)
    assert b"".join(buffers) == codec.encode(message, 16)
    assert sum(buffer is large for buffer in buffers) == 2
    assert len(buffers) == 5


def test_an_element_may_be_bytes_encoded_before() -> None:
    partition = PartitionData(partition_index=3, high_watermark=9, records=b"")
    ready = codec.encode(partition, 16)
    fresh = FetchResponse(responses=[FetchableTopic(partitions=[partition, partition])])
    cached = FetchResponse(responses=[FetchableTopic(partitions=[ready, partition])])
    assert codec.encode(cached, 16) == codec.encode(fresh, 16)


def test_tagged_fields_at_their_default_are_not_written() -> None:
    bare = codec.encode(FetchResponse(), 16)
    endpoint = codec.struct("FetchResponse.NodeEndpoint")(node_id=1, host="h", port=9)
    full = FetchResponse(node_endpoints=[endpoint])
    assert bare[-1] == 0
    assert codec.decode("FetchResponse", 16, codec.encode(full, 16)) == full
    assert len(codec.encode(full, 16)) > len(bare)


def test_unknown_tagged_fields_are_dropped() -> None:
    data = codec.encode(Heartbeat(group_id="g"), 4)
    tagged = data[:-1] + b"\x02\x05\x03abc\x80\x01\x00"
    assert codec.decode("HeartbeatRequest", 4, tagged) == Heartbeat(group_id="g")


def test_a_known_tag_may_not_lie_about_its_size() -> None:
    data = codec.encode(FetchResponse(), 16)
    with pytest.raises(codec.Malformed, match="size"):
        codec.decode("FetchResponse", 16, data[:-1] + b"\x01\x00\x02\x01\x00")


def test_null_is_refused_where_the_version_has_none() -> None:
    with pytest.raises(encoder.NullNotAllowed, match="group_id"):
        codec.encode(Heartbeat(group_id=None), 4)
    with pytest.raises(encoder.NullNotAllowed, match="responses"):
        codec.encode(FetchResponse(responses=None), 16)
    with pytest.raises(codec.Malformed, match="-1 bytes"):
        codec.decode("HeartbeatRequest", 0, b"\xff\xff")


def test_integers_out_of_range_are_our_bug_and_said_so() -> None:
    with pytest.raises(packing.error):
        codec.encode(Heartbeat(generation_id=1 << 31), 4)


def test_unknown_versions_are_refused_both_ways() -> None:
    for version in (-1, 5):
        with pytest.raises(schema.UnsupportedVersion):
            codec.encode(Heartbeat(), version)
        with pytest.raises(schema.UnsupportedVersion):
            codec.decode("HeartbeatRequest", version, b"")


def test_bytes_left_over_are_refused() -> None:
    data = codec.encode(Heartbeat(group_id="g"), 4)
    with pytest.raises(codec.Malformed, match="1 bytes left over"):
        codec.decode("HeartbeatRequest", 4, data + b"\x00")


@pytest.mark.parametrize("version", range(5))
def test_every_truncation_is_refused(version: int) -> None:
    data = codec.encode(Heartbeat(group_id="group", member_id="member", group_instance_id="i"), version)
    for end in range(len(data)):
        with pytest.raises(codec.Malformed):
            codec.decode("HeartbeatRequest", version, data[:end])


def test_text_that_is_not_utf_8_is_refused() -> None:
    for name, version in (("HeartbeatRequest", 0), ("ProduceRequest", 3)):
        with pytest.raises(codec.Malformed, match="utf-8"):
            codec.decode(name, version, b"\x00\x02\xc0\x80" + bytes(40))


@pytest.mark.parametrize("count", [b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x10\x00"])
def test_a_count_beyond_the_bytes_that_are_left_is_refused(count: bytes) -> None:
    with pytest.raises(codec.Malformed, match="topics"):
        codec.decode("MetadataRequest", 1, count + bytes(20))


def test_a_compact_count_beyond_32_bits_is_refused() -> None:
    for bomb in (b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\x7f", b"\xff" * 12):
        with pytest.raises(codec.Malformed):
            codec.decode("MetadataRequest", 12, bomb + bytes(40))


def test_a_message_of_too_many_elements_is_refused() -> None:
    count = decoder.MAX_ELEMENTS + 1
    names = codec.struct("ListGroupsRequest")(states_filter=[""] * count)
    with pytest.raises(codec.Malformed, match="more than"):
        codec.decode("ListGroupsRequest", 4, codec.encode(names, 4))
    names.states_filter.pop()
    assert len(codec.decode("ListGroupsRequest", 4, codec.encode(names, 4)).states_filter) == count - 1


@given(st.integers(0, (1 << 32) - 1))
def test_unsigned_varints_read_back(value: int) -> None:
    data = varint.encode_unsigned(value)
    assert varint.unsigned(data, 0) == (value, len(data))


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_signed_varints_read_back(value: int) -> None:
    data = varint.encode_signed(value)
    assert varint.signed(data, 0) == (value, len(data))


def test_varints_out_of_range_are_refused() -> None:
    for value in (-1, 1 << 32):
        with pytest.raises(OverflowError):
            varint.encode_unsigned(value)
    with pytest.raises(varint.VarintTooLong):
        varint.unsigned(b"\xff\xff\xff\xff\x1f", 0)
    with pytest.raises(varint.VarintTooLong):
        varint.signed(b"\xff" * 9 + b"\x7f", 0)


def test_a_text_longer_than_the_bytes_that_are_left_is_named() -> None:
    with pytest.raises(codec.Malformed, match="group_id of 5 bytes where 3 are left"):
        codec.decode("HeartbeatRequest", 0, b"\x00\x05abc")
    with pytest.raises(codec.Malformed, match="group_id of 1000 bytes where 3 are left"):
        codec.decode("HeartbeatRequest", 4, b"\xe9\x07abc")
