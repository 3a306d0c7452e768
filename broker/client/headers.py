"""Numbers in headers: what is taken for one, and what is done where it is none.

A number is decimal ASCII digits, perhaps after a minus, at most 19 of them. What is no number, or lies outside the
header's range, is *odd*: the header is passed over as if it were not there, and counted (`Progress.odd`), never an
error: a record must not be lost, nor stop those behind it, for what somebody wrote into a header.
"""

from dataclasses import dataclass

from broker.client import records
from broker.client.records import Record

MQTT_EXPIRY = "mqtt.message.expiry"
BOUND = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Numeric:
    """One header's range, both ends included."""

    name: str
    low: int
    high: int


EXPIRES_AT = Numeric(records.EXPIRES_AT, -BOUND, BOUND)
"""Epoch ms; in the past (zero and less included): expired."""
EXPIRY = Numeric(MQTT_EXPIRY, 0, 2**32 - 1)
"""Seconds from the record's timestamp on (MQTT 5, 3.3.2.3.3)."""
REDRIVES = Numeric(records.REDRIVE_COUNT, 1, 1_000_000_000)
ATTEMPTS = Numeric(records.ATTEMPTS, 1, 1_000_000_000)
DELIVER_AT = Numeric(records.DELIVER_AT, 1, BOUND)
ORIGIN_PARTITION = Numeric(records.ORIGIN_PARTITION, 0, 2**31 - 1)
ORIGIN_OFFSET = Numeric(records.ORIGIN_OFFSET, 0, BOUND)
ORIGIN_TIMESTAMP = Numeric(records.ORIGIN_TIMESTAMP, -1, BOUND)


def number(record: Record, header: Numeric) -> int | None:
    """The header's number; None where it is missing or odd."""
    value = record.header(header.name)
    if value is None:
        return None
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or len(digits) > 19:
        return None
    found = int(value)
    return found if header.low <= found <= header.high else None


def is_odd(record: Record, header: Numeric) -> bool:
    """Whether the header is there and says nothing that can be used."""
    return record.header(header.name) is not None and number(record, header) is None
