"""Dead letters: how everybody's are read, and the headers that ours carry.

A convention is recognised by its headers (or, for brokers whose bridges put properties into headers, by its property
names). Where one record carries several, it has been dead more than once; the product's own headers describe the last
time, so they come first.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.client import records
from broker.client.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What a dead letter tells about itself. Unknown is None.

    `convention` is one of "sluice", "kafka" (KIP-1191), "spring", "connect", "rocketmq", "pulsar", "rabbitmq",
    "artemis" or "" (none recognised). `timestamp` is epoch ms of the original. `reason` is a short slug or class name
    to count by, `detail` for people, `extra` whatever else the convention says, decoded to text.
    """

    convention: str
    reason: str | None = None
    detail: str | None = None
    attempts: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    timestamp: int | None = None
    group: str | None = None
    message_id: str | None = None
    redrives: int = 0
    extra: Mapping[str, str] = field(default_factory=dict)


def describe(record: Record) -> DeadLetter:
    """What this record says about why it is a dead letter and where it came from, by any known convention."""
    headers = {name: value for name, value in record.headers if value is not None}
    for recognise in (_sluice, _kafka, _spring, _connect, _rabbitmq, _pulsar, _rocketmq, _artemis):
        found = recognise(headers, record.topic)
        if found is not None:
            return found
    return DeadLetter(convention="", message_id=_text(headers, records.MESSAGE_ID))


Headers = Mapping[str, bytes]


def _sluice(headers: Headers, _: str) -> DeadLetter | None:
    if records.ERROR_REASON not in headers:
        return None
    return DeadLetter(
        convention="sluice",
        reason=_text(headers, records.ERROR_REASON),
        detail=_text(headers, records.ERROR_DETAIL),
        attempts=_int(headers, records.ATTEMPTS),
        topic=_text(headers, records.ORIGIN_TOPIC),
        partition=_int(headers, records.ORIGIN_PARTITION),
        offset=_int(headers, records.ORIGIN_OFFSET),
        timestamp=_int(headers, records.ORIGIN_TIMESTAMP),
        group=_text(headers, records.ORIGIN_GROUP),
        message_id=_text(headers, records.MESSAGE_ID),
        redrives=_int(headers, records.REDRIVE_COUNT) or 0,
        extra=_rest(headers, "mqtt."),
    )


DLQ = "__dlq.errors."
DLQ_REASONS = {
    "Offset rejected by client.": "rejected",
    "Offset delivery count exceeded the threshold.": "attempts",
}


def _kafka(headers: Headers, _: str) -> DeadLetter | None:
    """KIP-1191: what a share group gave up on."""
    if not any(name.startswith(DLQ) for name in headers):
        return None
    message = _text(headers, DLQ + "message")
    known = ("topic", "partition", "offset", "group", "delivery.count", "message")
    return DeadLetter(
        convention="kafka",
        reason=DLQ_REASONS.get(message or "", "other"),
        detail=message,
        attempts=_int(headers, DLQ + "delivery.count"),
        topic=_text(headers, DLQ + "topic"),
        partition=_int(headers, DLQ + "partition"),
        offset=_int(headers, DLQ + "offset"),
        group=_text(headers, DLQ + "group"),
        message_id=_text(headers, records.MESSAGE_ID),
        redrives=_int(headers, records.REDRIVE_COUNT) or 0,
        extra=_rest(headers, DLQ, known),
    )


DLT = "kafka_dlt-"


def _spring(headers: Headers, _: str) -> DeadLetter | None:
    """Spring Kafka's DeadLetterPublishingRecoverer and retry topics. Its numbers are big-endian int32 and int64."""
    if not any(name.startswith((DLT, "retry_topic-")) for name in headers):
        return None
    cause = _text(headers, DLT + "exception-cause-fqcn") or _text(headers, DLT + "exception-fqcn")
    group = _text(headers, DLT + "original-consumer-group")
    known = ("original-topic", "original-partition", "original-offset", "original-timestamp", "original-consumer-group")
    return DeadLetter(
        convention="spring",
        reason=cause.rpartition(".")[2] if cause else None,
        detail=_text(headers, DLT + "exception-message"),
        attempts=_number(headers, "retry_topic-attempts"),
        topic=_text(headers, DLT + "original-topic"),
        partition=_number(headers, DLT + "original-partition"),
        offset=_number(headers, DLT + "original-offset"),
        timestamp=_first(
            _number(headers, DLT + "original-timestamp"), _number(headers, "retry_topic-original-timestamp")
        ),
        group=group,
        extra=_rest(headers, DLT, known),
    )


CONNECT = "__connect.errors."


def _connect(headers: Headers, _: str) -> DeadLetter | None:
    """Kafka Connect's sink errors (`errors.deadletterqueue.context.headers.enable`)."""
    if not any(name.startswith(CONNECT) for name in headers):
        return None
    cause = _text(headers, CONNECT + "exception.class.name")
    connector = _text(headers, CONNECT + "connector.name")
    return DeadLetter(
        convention="connect",
        reason=cause.rpartition(".")[2] if cause else _text(headers, CONNECT + "stage"),
        detail=_text(headers, CONNECT + "exception.message"),
        topic=_text(headers, CONNECT + "topic"),
        partition=_int(headers, CONNECT + "partition"),
        offset=_int(headers, CONNECT + "offset"),
        # Connect's sinks read in a group of this name
        group=f"connect-{connector}" if connector else None,
        extra=_rest(headers, CONNECT, ("topic", "partition", "offset", "exception.message")),
    )


def _rocketmq(headers: Headers, topic: str) -> DeadLetter | None:
    """RocketMQ: %RETRY%group and %DLQ%group."""
    named = re.match(r"%(?:DLQ|RETRY)%(.+)", topic)
    if "DLQ_ORIGIN_TOPIC" not in headers and "RECONSUME_TIME" not in headers and named is None:
        return None
    origin = _text(headers, "DLQ_ORIGIN_TOPIC") or _text(headers, "RETRY_TOPIC") or _text(headers, "REAL_TOPIC")
    return DeadLetter(
        convention="rocketmq",
        reason="attempts",
        attempts=_int(headers, "RECONSUME_TIME"),
        topic=origin,
        group=named.group(1) if named else _text(headers, "PGROUP"),
        message_id=_text(headers, "DLQ_ORIGIN_MESSAGE_ID") or _text(headers, "ORIGIN_MESSAGE_ID"),
    )


def _pulsar(headers: Headers, topic: str) -> DeadLetter | None:
    """Pulsar: topic-subscription-RETRY and -DLQ, with REAL_TOPIC and a message id ledger:entry:partition."""
    if "REAL_TOPIC" not in headers or "DLQ_ORIGIN_TOPIC" in headers or "RECONSUME_TIME" in headers:
        return None
    origin = _text(headers, "REAL_TOPIC") or ""
    short = origin.rpartition("/")[2]
    named = re.match(re.escape(short) + r"-(.+)-(?:DLQ|RETRY)$", topic.rpartition("/")[2]) if short else None
    subscription = _text(headers, "REAL_SUBSCRIPTION") or (named.group(1) if named else None)
    return DeadLetter(
        convention="pulsar",
        reason=_text(headers, "EXCEPTION_CLASS") or "attempts",
        detail=_text(headers, "EXCEPTION_MESSAGE"),
        attempts=_int(headers, "RECONSUMETIMES"),
        topic=origin or None,
        group=subscription,
        message_id=_text(headers, "ORIGIN_MESSAGE_ID"),
    )


def _rabbitmq(headers: Headers, _: str) -> DeadLetter | None:
    """RabbitMQ: `x-death`, newest first, as bridges write it (JSON), or its `x-first-death-*` shorthands."""
    deaths = _deaths(headers.get("x-death"))
    shorthand = "x-first-death-queue" in headers or "x-last-death-queue" in headers
    if deaths is None and not shorthand:
        return None
    last: Mapping[str, Any] = deaths[0] if deaths else {}
    keys = last.get("routing-keys") or []
    moment = last.get("time")
    return DeadLetter(
        convention="rabbitmq",
        reason=_string(last.get("reason"))
        or _text(headers, "x-last-death-reason")
        or _text(headers, "x-first-death-reason"),
        attempts=_whole(last.get("count")),
        topic=_string(last.get("queue"))
        or _text(headers, "x-last-death-queue")
        or _text(headers, "x-first-death-queue"),
        timestamp=_seconds(moment),
        extra={
            name: text
            for name, text in {
                "exchange": _string(last.get("exchange")) or _text(headers, "x-first-death-exchange"),
                "routing-keys": ", ".join(map(str, keys)) if isinstance(keys, list) else str(keys),
                "deaths": str(len(deaths)) if deaths else None,
            }.items()
            if text
        },
    )


def _deaths(value: bytes | None) -> list[Mapping[str, Any]] | None:
    if value is None:
        return None
    try:
        parsed = json.loads(value)
    except ValueError:
        return []
    entries = parsed if isinstance(parsed, list) else [parsed]
    return [entry for entry in entries if isinstance(entry, dict)]


def _artemis(headers: Headers, _: str) -> DeadLetter | None:
    """ActiveMQ Artemis."""
    if "_AMQ_ORIG_ADDRESS" not in headers and "_AMQ_ORIG_QUEUE" not in headers:
        return None
    expired = _int(headers, "_AMQ_ACTUAL_EXPIRY")
    return DeadLetter(
        convention="artemis",
        reason="expired" if expired else "attempts",
        topic=_text(headers, "_AMQ_ORIG_ADDRESS"),
        group=_text(headers, "_AMQ_ORIG_QUEUE"),
        message_id=_text(headers, "_AMQ_ORIG_MESSAGE_ID") or _text(headers, "_AMQ_DUPL_ID"),
        extra={"routing-type": found} if (found := _text(headers, "_AMQ_ORIG_ROUTING_TYPE")) else {},
    )


# --- reading single headers; what can't be read is unknown, never an error


def _text(headers: Headers, name: str) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("utf-8", "replace")


def _int(headers: Headers, name: str) -> int | None:
    """A number written as text."""
    value = headers.get(name)
    if value is None or len(value) > 20 or not re.fullmatch(rb"\s*-?[0-9]+\s*", value):
        return None
    return int(value)


def _number(headers: Headers, name: str) -> int | None:
    """A number as Spring writes it: big-endian int32 or int64; as text where somebody mapped it so."""
    value = headers.get(name)
    if value is None:
        return None
    if len(value) in (4, 8):
        # four ASCII digits would be a number above 808 million: no partition, and no attempt count
        if len(value) == 4 and value.isdigit():
            return int(value)
        return int(struct.unpack(">i" if len(value) == 4 else ">q", value)[0])
    return _int(headers, name)


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(value: object) -> int | None:
    """Epoch seconds (AMQP's timestamps) as milliseconds; milliseconds stay."""
    number = _whole(value)
    if number is None:
        return None
    return number if number > 10_000_000_000 else number * 1000


def _rest(headers: Headers, prefix: str, without: tuple[str, ...] = ()) -> dict[str, str]:
    dropped = {prefix + name for name in without}
    return {
        name.removeprefix(prefix) if prefix != "mqtt." else name: value.decode("utf-8", "replace")
        for name, value in headers.items()
        if name.startswith(prefix) and name not in dropped
    }
