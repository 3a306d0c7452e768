"""When a message is too old to be handed over, and what becomes of it then.

Two headers of a record say so: `sluice.expires.at` (epoch milliseconds) and `mqtt.message.expiry` (seconds after the
record's timestamp; MQTT 5, 3.3.2.3.3). Where there are both, the earlier counts. Judged when a message would be handed
to a device, whether it comes from the log, an inbox, the retained messages or a downlink route; what is in flight
already is completed (4.3.3).

Nonsense: a value that is not a decimal number, or doesn't fit (64 bits; four bytes for the interval), sets no expiry,
as if the header were not there. A number in the past, zero and negative ones included, has expired: as in share groups.
"""

from __future__ import annotations

from broker.client import TopicPartition
from broker.client.records import (
    ERROR_DETAIL,
    ERROR_REASON,
    EXPIRES_AT,
    ORIGIN_OFFSET,
    ORIGIN_PARTITION,
    ORIGIN_TOPIC,
    Record,
)
from gateway import contract
from gateway.contract import GATEWAY_DEAD_LETTERS
from gateway.headers import headers_from
from gateway.mqtt.sender import LONGEST
from gateway.ports import Message
from gateway.storage.ticks import Headers, Write

_DIGITS = 19


def moment(value: bytes | None) -> float | None:
    """Epoch seconds of a `sluice.expires.at`; None: no expiry."""
    if value is None:
        return None
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > _DIGITS or not -(1 << 63) <= int(value) < 1 << 63:
        return None
    return int(value) / 1000.0


def interval(value: bytes | None) -> int | None:
    """Seconds of an `mqtt.message.expiry`; None: no expiry."""
    if value is None or not value.isdigit() or len(value) > _DIGITS or int(value) > LONGEST:
        return None
    return int(value)


def earlier(one: float | None, other: float | None) -> float | None:
    """Of two moments; None is never."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def expires_at(record: Record) -> float | None:
    """Epoch seconds when a record expires; None: never."""
    seconds = interval(record.header(contract.H_EXPIRY))
    end = None if seconds is None else record.timestamp / 1000.0 + seconds
    return earlier(end, moment(record.header(EXPIRES_AT)))


def letter(message: Message, client_id: str) -> Write:
    """The dead letter of a message that expired on its way to this client."""
    headers: Headers = [(contract.H_TOPIC, message.topic.encode()), (contract.H_QOS, b"%d" % message.qos)]
    if message.sender:
        headers.append((contract.H_CLIENT, message.sender.encode()))
    if message.properties is not None:
        headers += headers_from(message.properties)
    headers += [(ERROR_REASON, "expired"), (ERROR_DETAIL, f"not delivered to {client_id} in time")]
    if message.origin is not None:
        place, offset = TopicPartition(message.origin[0], message.origin[1]), message.origin[2]
        headers += [
            (ORIGIN_TOPIC, place.topic),
            (ORIGIN_PARTITION, str(place.partition)),
            (ORIGIN_OFFSET, str(offset)),
        ]
    return GATEWAY_DEAD_LETTERS, message.payload, client_id.encode(), headers
