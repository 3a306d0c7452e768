"""Records that are too old to be handed out: header `sluice.expires.at`, milliseconds since the epoch.

Judged at the moment a record would be handed over. A value that is not a decimal number, or does not fit 64 bits, sets
no expiry: the record is delivered as if the header were not there. A number in the past, zero and negative ones
included, has expired.
"""

from __future__ import annotations

from collections.abc import Iterable

from broker.groups.share_partition import Acquired
from broker.wire import batch
from broker.wire.batch import Batch, Compression, Record

EXPIRES = "sluice.expires.at"
_BYTES = EXPIRES.encode()
_DIGITS = 19


def may_expire(raw: bytes, batches: Iterable[Batch]) -> bool:
    """Whether it is worth looking at the records at all; cheap for batches that are not compressed."""
    return _BYTES in raw or any(one.compression is not Compression.NONE for one in batches)


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
    for name, value in record.headers:
        if name == EXPIRES and value is not None:
            text = bytes(value)
            digits = text[1:] if text[:1] == b"-" else text
            if digits.isdigit() and len(digits) <= _DIGITS:
                return int(text) <= now
    return False


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
