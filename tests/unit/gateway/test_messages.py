"""What a record's headers say of an MQTT message is what its publisher said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.client import Record
from broker.client.records import MESSAGE_ID
from gateway import contract
from gateway.delivering.messages import message_of
from gateway.headers import headers_from
from gateway.ports import PublishProperties

TEXT = st.text(max_size=5).filter(lambda text: not any("\ud800" <= each <= "\udfff" for each in text))


@given(
    st.builds(
        PublishProperties,
        payload_format=st.sampled_from([None, 0, 1]),
        message_expiry=st.none() | st.integers(0, 0xFFFFFFFF),
        content_type=st.none() | TEXT,
        response_topic=st.none() | TEXT.filter(bool),
        correlation_data=st.none() | st.binary(max_size=5),
        user=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    )
)
def test_properties_travel_through_the_log_unaltered(properties: PublishProperties) -> None:
    """MQTT-3.3.2-4, -15 to -18, -20; Payload Format Indicator 0 is not the same as none."""
    found = [(contract.H_TOPIC, b"t"), *headers_from(properties)]
    headers = tuple((name, each.encode() if isinstance(each, str) else each) for name, each in found)
    message = message_of(Record("topic", 0, 0, 1_700_000_000_000, None, b"x", headers))
    assert message is not None
    read = message.properties or PublishProperties()
    assert all(name != MESSAGE_ID for name, _ in properties.user)
    assert read == properties
