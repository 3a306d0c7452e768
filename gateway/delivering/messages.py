"""The MQTT message that a record holds."""

from __future__ import annotations

from broker.client import Record
from broker.client.records import EXPIRES_AT
from gateway import contract
from gateway.delivering.expiry import expires_at, interval
from gateway.ports import Message, PublishProperties

_PROPERTIES = frozenset(
    {
        contract.H_CONTENT_TYPE,
        contract.H_RESPONSE_TOPIC,
        contract.H_CORRELATION,
        contract.H_EXPIRY,
        contract.H_FORMAT,
    }
)


def message_of(record: Record) -> Message | None:
    """The MQTT message that a record holds; None when it came from elsewhere (no `mqtt.topic`)."""
    topic: str | None = None
    sender: str | None = None
    qos = 0
    retain = False
    extra = dated = False
    for name, value in record.headers:
        if value is None:
            continue
        if name == contract.H_TOPIC:
            topic = value.decode("utf-8", "replace")
        elif name == contract.H_CLIENT:
            sender = value.decode("utf-8", "replace")
        elif name == contract.H_QOS:
            qos = {b"1": 1, b"2": 2}.get(value, 0)
        elif name == contract.H_RETAIN:
            retain = value == b"1"
        elif name in _PROPERTIES or name.startswith(contract.H_USER):
            extra = True
            dated = dated or name == contract.H_EXPIRY
        elif name == EXPIRES_AT:
            dated = True
    if topic is None or not topic or "+" in topic or "#" in topic or "\x00" in topic:
        return None
    properties = properties_from(record) if extra else None
    return Message(
        topic,
        record.value or b"",
        qos,
        retain,
        properties=properties,
        expires_at=expires_at(record) if dated else None,
        sender=sender,
        origin=(record.topic, record.partition, record.offset),
    )


def properties_from(record: Record) -> PublishProperties:
    """The MQTT 5 properties in a record's headers."""
    user = tuple(
        (name[len(contract.H_USER) :], value.decode("utf-8", "replace"))
        for name, value in record.headers
        if value is not None and name.startswith(contract.H_USER)
    )
    return PublishProperties(
        payload_format={b"0": 0, b"1": 1}.get(record.header(contract.H_FORMAT) or b""),
        message_expiry=interval(record.header(contract.H_EXPIRY)),
        content_type=record.text(contract.H_CONTENT_TYPE),
        response_topic=record.text(contract.H_RESPONSE_TOPIC),
        correlation_data=record.header(contract.H_CORRELATION),
        user=user,
    )
