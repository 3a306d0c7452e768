"""Records that are too old to be handed out: headers `sluice.expires.at` (ms since the epoch) and `mqtt.message.expiry`
(seconds after the record's timestamp), whichever ends first.

Judged at the moment a record would be handed over. A value that is not a decimal number, or does not fit 64 bits
(MQTT's: 0 to 2**32 - 1), sets no expiry: the record is delivered as if the header were not there. A number in the past,
zero and negative ones included, has expired. `broker.client.headers` reads them alike for `run_consumer`.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.groups.share_partition import Acquired
from broker.wire import batch
from broker.wire.batch import Batch, Compression, Record

EXPIRES = "sluice.expires.at"
MQTT_EXPIRY = "mqtt.message.expiry"
_NAMES = (EXPIRES.encode(), MQTT_EXPIRY.encode())
_DIGITS = 19
_BOUND = 2**63 - 1
_MQTT_BOUND = 2**32 - 1


def may_expire(raw: bytes, batches: Iterable[Batch]) -> bool:
    """Whether it is worth looking at the records at all; cheap for batches that are not compressed."""
    return any(name in raw for name in _NAMES) or any(one.compression is not Compression.NONE for one in batches)


def expired(batches: Iterable[Batch], acquired: list[Acquired], now: int) -> list[int]:
    """Offsets among those acquired whose records have expired."""
    return [
        record.offset
        for one in batches
        if any(a.first <= one.last_offset and one.base_offset <= a.last for a in acquired)
        for record in batch.records(one)
        if _is_expired(record, now) and any(a.first <= record.offset <= a.last for a in acquired)
    ]


def _is_expired(record: Record, now: int) -> bool:
    at = _number(record, EXPIRES, -_BOUND, _BOUND)
    seconds = _number(record, MQTT_EXPIRY, 0, _MQTT_BOUND) if record.timestamp >= 0 else None
    return (at is not None and at <= now) or (seconds is not None and record.timestamp + seconds * 1000 <= now)


def _number(record: Record, wanted: str, low: int, high: int) -> int | None:
    """The last header of that name, where it is a number of that range."""
    for name, value in reversed(record.headers):
        if name == wanted:
            text = bytes(value or b"")
            digits = text[1:] if text[:1] == b"-" else text
            if digits.isdigit() and len(digits) <= _DIGITS and low <= int(text) <= high:
                return int(text)
            return None
    return None


def without(acquired: list[Acquired], offsets: list[int]) -> list[Acquired]:
    """The acquired ranges less those offsets."""
    gone = sorted(offsets)
    kept: list[Acquired] = []
    for a in acquired:
        first = a.first
        for offset in gone:
            if first <= offset <= a.last:
                if offset > first:
                    kept.append(Acquired(first, offset - 1, a.count))
                first = offset + 1
        if first <= a.last:
            kept.append(Acquired(first, a.last, a.count))
    return kept
