"""Pure: what a record of `sluice.delay` asks for.

A record with `sluice.deliver.topic` and either `sluice.deliver.at` (epoch milliseconds) or `sluice.deliver.after` (a
whole number and ms, s, m, h or d, counted from the record's timestamp) is to be appended to that topic then. One with
`sluice.deliver.cancel` (a message id, together with the record's key) or `sluice.deliver.cancel.row` takes pending ones
back. Whatever is neither has one fate: the dead-letter topic, with a slug and a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from broker.client.records import (
    DELIVER_AFTER,
    DELIVER_AT,
    DELIVER_CANCEL,
    DELIVER_CANCEL_ROW,
    DELIVER_TOPIC,
    MESSAGE_ID,
    Headers,
    Record,
    without,
)

DELAY_TOPIC = "sluice.delay"
DELAY_DEAD_LETTERS = "dlq.sluice.delay"
DELAYS = "__sluice_delays"
DELAY_QUERIES = "__sluice_delay_queries"
PRINCIPAL = "User:sluice.delay"
"""Whose permission to WRITE decides, once there are ACLs, which topics may be delivered to."""

DELAY_PARTITIONS = 4
DELAY_CONFIG = {"message.timestamp.type": "LogAppendTime"}
"""How `sluice.delay` is made: the broker's clock decides what "after" counts from and what the past is."""

MAX_DELAY_MS = 30 * 86_400_000
DELIVERY_HEADERS = frozenset({DELIVER_TOPIC, DELIVER_AT, DELIVER_AFTER, DELIVER_CANCEL, DELIVER_CANCEL_ROW})

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}\Z")
_AT = re.compile(r"[0-9]{1,18}\Z")
_AFTER = re.compile(r"([0-9]{1,18})(ms|s|m|h|d)\Z")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """To be appended to `target` at `due` (epoch milliseconds), which is never before the record's own timestamp.
    `headers` are the record's less those that asked for the delivery."""

    target: str
    due: int
    id: str | None
    headers: Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancellation:
    """Of everything pending in this partition with the record's key and this id, or of one row."""

    id: str | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """`reason` is a slug: time, target, denied, cancel, rejected or size."""

    reason: str
    detail: str


def asked(record: Record) -> Delivery | Cancellation | Refused:
    """What a record asks for."""
    names = {name for name, _ in record.headers}
    if DELIVER_CANCEL in names or DELIVER_CANCEL_ROW in names:
        return _cancellation(record)
    target = record.text(DELIVER_TOPIC)
    if not target:
        return Refused(reason="target", detail=f"the record has no {DELIVER_TOPIC} header")
    wrong = misnamed(target)
    if wrong:
        return Refused(reason="target", detail=wrong)
    if DELIVER_AT in names and DELIVER_AFTER in names:
        return Refused(reason="time", detail=f"the record has both {DELIVER_AT} and {DELIVER_AFTER}")
    due = when(record.text(DELIVER_AT), record.text(DELIVER_AFTER), record.timestamp)
    if isinstance(due, Refused):
        return due
    headers = without(record.headers, DELIVERY_HEADERS)
    return Delivery(target=target, due=due, id=record.text(MESSAGE_ID) or None, headers=headers)


def misnamed(target: str) -> str:
    """Why nothing is ever delivered to a topic of this name; empty: it is a possible target."""
    if not _TOPIC.match(target) or target in (".", ".."):
        return f"{target[:249]!r} is not a topic name"
    if target.startswith("__"):
        return f"{target} is an internal topic; nothing is delivered there"
    if target == DELAY_TOPIC:
        return f"{target} is where deliveries are asked for; nothing is delivered there"
    return ""


def when(at: str | None, after: str | None, timestamp: int) -> int | Refused:
    """When a delivery is due, in epoch milliseconds: the past counts as `timestamp`, the record's own."""
    if at is not None:
        if not _AT.match(at):
            return _untimely(f"{DELIVER_AT} is {at[:60]!r}; it must be epoch milliseconds, digits only")
        due = int(at)
    elif after is not None:
        found = _AFTER.match(after)
        if found is None:
            return _untimely(f"{DELIVER_AFTER} is {after[:60]!r}; it must be like 500ms, 30s, 15m, 2h or 1d")
        due = timestamp + int(found[1]) * _UNITS[found[2]]
    else:
        return _untimely(f"the record has neither {DELIVER_AT} nor {DELIVER_AFTER}")
    if due - timestamp > MAX_DELAY_MS:
        return _untimely(f"{at if at is not None else after} is more than 30 days ahead")
    return max(due, timestamp)


def _untimely(detail: str) -> Refused:
    return Refused(reason="time", detail=detail)


def _cancellation(record: Record) -> Cancellation | Refused:
    row = record.text(DELIVER_CANCEL_ROW)
    if row is not None:
        if not _AT.match(row):
            return Refused(reason="cancel", detail=f"{DELIVER_CANCEL_ROW} is {row[:60]!r}; it must be a number")
        return Cancellation(row=int(row))
    found = record.text(DELIVER_CANCEL)
    if not found:
        return Refused(reason="cancel", detail=f"{DELIVER_CANCEL} is empty; it must be the message id")
    return Cancellation(id=found)
