"""Records that are too old to be handled, judged when their turn comes: by `sluice.expires.at` (epoch ms) and by
`mqtt.message.expiry` (seconds after the record's timestamp), whichever ends first."""

from broker.client import headers
from broker.client.records import Record

READ = (headers.EXPIRES_AT, headers.EXPIRY)


def expires_at(record: Record) -> int | None:
    """When the record is too old, epoch ms; None: never. Odd headers set no expiry; a record without a timestamp can't
    expire by its MQTT header."""
    at = headers.number(record, headers.EXPIRES_AT)
    seconds = headers.number(record, headers.EXPIRY)
    if seconds is None or record.timestamp < 0:
        return at
    by_mqtt = record.timestamp + seconds * 1000
    return by_mqtt if at is None else min(at, by_mqtt)


def is_expired(record: Record, now: float) -> bool:
    """Whether it is too old at `now`, epoch seconds."""
    if not record.headers:
        return False
    at = expires_at(record)
    return at is not None and at <= now * 1000
