"""Delivering later, from the client's side: ask for a delivery, take it back, see what is pending.

What is pending only the delay service knows. It is asked through the topic `__sluice_delay_queries`: every instance
answers for the partitions it owns, and what no instance answered for within the deadline is unknown, which is not none.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.client.administration.admin import Admin
from broker.client.administration.types import At
from broker.client.consuming import Consumer
from broker.client.delaying import DELAY_QUERIES, DELAY_TOPIC
from broker.client.errors import ClientError, TimedOut
from broker.client.outgoing import OutgoingHeaders
from broker.client.producing import Producer
from broker.client.records import (
    DELIVER_AFTER,
    DELIVER_AT,
    DELIVER_CANCEL,
    DELIVER_CANCEL_ROW,
    DELIVER_TOPIC,
    MESSAGE_ID,
    Delivered,
    TopicPartition,
)
from broker.client.settings import Settings

HORIZONS: Mapping[str, int] = {
    "late": 0,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
    "week": 7 * 86_400_000,
    "month": 31 * 86_400_000,
}
"""Name → milliseconds from now; each counts what is due before it and not before the one above. `late` is overdue."""
LARGEST_PAGE = 500
_AGAIN_SECONDS = 0.05

Place = tuple[int, int, int]
"""(due, partition, row): where a page ends and the next one goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One pending delivery. `key` and `id` are cut after 256 bytes; `size` is the payload's, in bytes."""

    partition: int
    row: int
    due: int
    target: str
    key: bytes | None
    id: str | None
    size: int

    @property
    def place(self) -> Place:
        return self.due, self.partition, self.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """`unknown` maps the partitions nobody (able to) answered for to the reason."""

    rows: tuple[Pending, ...]
    more: bool
    unknown: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much is pending, by horizon, in the partitions that were answered for. `since` sums what the instances did
    since they own their partitions: taken, fired, cancelled, refused. `error_p50`, `error_p99`: by how many
    milliseconds the newest deliveries came after their times, the worst partition's."""

    horizons: Mapping[str, int]
    since: Mapping[str, int]
    error_p50: int | None
    error_p99: int | None
    unknown: Mapping[int, str]

    @property
    def pending(self) -> int | None:
        """All of it; None while any partition is unknown."""
        return None if self.unknown else sum(self.horizons.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """A cancellation that was processed: it took back `count` deliveries. 0: it came too late (and is a dead letter of
    `dlq.sluice.delay` with reason `cancel`); None: the service was restarted since and can't say."""

    count: int | None
    record: Delivered


class Delays:
    """May be shared between threads: one question at a time. Every call ends within `timeout` seconds or so."""

    def __init__(self, settings: Settings, *, timeout: float = 5.0) -> None:
        self._settings = settings
        self._timeout = timeout
        self._lock = threading.Lock()
        self._admin: Admin | None = None
        self._producer: Producer | None = None
        self._reader: Consumer | None = None

    def close(self) -> None:
        with self._turn():
            self._forget()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One question at a time."""
        if not self._lock.acquire(timeout=self._timeout):
            raise TimedOut("other questions about deliveries are still waiting for their answers")
        try:
            yield
        finally:
            self._lock.release()

    def __enter__(self) -> Delays:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking for deliveries

    def deliver(
        self,
        target: str,
        value: bytes | None,
        *,
        at: int | None = None,
        after: str | None = None,
        key: bytes | None = None,
        id: str | None = None,
        headers: OutgoingHeaders | None = None,
    ) -> Delivered:
        """Ask for a delivery `at` (epoch milliseconds) or `after` (`30s`); returns once the log holds the wish."""
        wanted: OutgoingHeaders = [*(headers or []), (DELIVER_TOPIC, target.encode())]
        if at is not None:
            wanted.append((DELIVER_AT, str(at).encode()))
        if after is not None:
            wanted.append((DELIVER_AFTER, after.encode()))
        if id is not None:
            wanted.append((MESSAGE_ID, id.encode()))
        with self._turn():
            return self._send(DELAY_TOPIC, value, key, wanted)

    def cancel(self, key: bytes | None, id: str, *, timeout: float = 10.0) -> Cancelled:
        """Take back what is pending with this key and id; returns once the service has processed it."""
        with self._turn():
            record = self._send(DELAY_TOPIC, None, key, [(DELIVER_CANCEL, id.encode())])
        return self._cancelled(record, timeout)

    def cancel_row(self, partition: int, row: int, *, timeout: float = 10.0) -> Cancelled:
        """Take back one row of a page."""
        with self._turn():
            record = self._send(DELAY_TOPIC, None, None, [(DELIVER_CANCEL_ROW, str(row).encode())], partition)
        return self._cancelled(record, timeout)

    def _cancelled(self, record: Delivered, timeout: float) -> Cancelled:
        deadline = time.monotonic() + timeout
        while True:
            question = {"ask": "cancelled", "partition": record.partition, "offset": record.offset}
            with self._turn():
                answers = self._ask(question, [record.partition], min(deadline, time.monotonic() + 1.0))
            answer = answers.get(record.partition, {})
            if answer.get("processed"):
                return Cancelled(count=answer["count"], record=record)
            if time.monotonic() > deadline:
                raise TimedOut("the cancellation is stored, but the delay service has not processed it yet")
            time.sleep(_AGAIN_SECONDS)

    # --- seeing what is pending

    def page(
        self,
        *,
        target: str = "",
        key: bytes | None = None,
        id: str = "",
        after: Place | None = None,
        limit: int = 50,
    ) -> Page:
        """What is due next: those whose target has this text in it, with this key, with this id."""
        limit = max(1, min(limit, LARGEST_PAGE))
        question: dict[str, Any] = {"ask": "page", "target": target, "id": id, "limit": limit + 1}
        if key is not None:
            question["key"] = base64.b64encode(key).decode()
        if after is not None:
            question["after"] = list(after)
        answers, unknown = self._all(question)
        rows = sorted(
            (_pending(partition, row) for partition, answer in answers.items() for row in answer["rows"]),
            key=lambda pending: pending.place,
        )
        return Page(rows=tuple(rows[:limit]), more=len(rows) > limit, unknown=unknown)

    def counts(self) -> Counts:
        answers, unknown = self._all({"ask": "counts"})
        every = list(answers.values())
        return Counts(
            horizons={name: sum(answer["horizons"][name] for answer in every) for name in HORIZONS},
            since={name: sum(answer[name] for answer in every) for name in ("taken", "fired", "cancelled", "refused")},
            error_p50=max((answer["p50"] for answer in every if answer["p50"] is not None), default=None),
            error_p99=max((answer["p99"] for answer in every if answer["p99"] is not None), default=None),
            unknown=unknown,
        )

    # --- questions and answers

    def _all(self, question: Mapping[str, Any]) -> tuple[dict[int, Any], dict[int, str]]:
        """What was answered and what was not, by partition; raises ClientError when the cluster can't be asked."""
        deadline = time.monotonic() + self._timeout
        with self._turn():
            topic = self._administrator().topics([DELAY_TOPIC, DELAY_QUERIES])
            if len(topic) < 2:
                raise ClientError("no delay service has run on this cluster yet")
            partitions = [partition.index for partition in topic[DELAY_TOPIC].partitions]
            answers = self._ask(question, partitions, deadline)
        known = {partition: answer for partition, answer in answers.items() if "trouble" not in answer}
        unknown = {
            partition: str(answers.get(partition, {}).get("trouble") or "no delay service answered")
            for partition in partitions
            if partition not in known
        }
        return known, unknown

    def _ask(self, question: Mapping[str, Any], partitions: Iterable[int], deadline: float) -> dict[int, Any]:
        try:
            return self._exchange(question, frozenset(partitions), deadline)
        except TimedOut:  # what is slow to connect gets there
            raise
        except ClientError:
            self._forget()
            raise

    def _exchange(self, question: Mapping[str, Any], partitions: frozenset[int], deadline: float) -> dict[int, Any]:
        identity = secrets.token_hex(8)
        reader = self._open()
        while reader.poll(500, 0):  # others' questions and answers
            pass
        body = {"v": 1, "kind": "question", "id": identity, **question}
        self._send(DELAY_QUERIES, json.dumps(body).encode(), identity.encode(), None, 0)
        found: dict[int, Any] = {}
        while time.monotonic() < deadline and not partitions <= found.keys():
            for record in reader.poll(1, min(0.2, max(0.0, deadline - time.monotonic()))):
                if record.key != identity.encode():
                    continue
                answer = json.loads(record.value or b"{}")
                if answer.get("kind") == "answer" and answer.get("v") == 1:
                    found |= {int(partition): each for partition, each in answer["partitions"].items()}
        return found

    def _open(self) -> Consumer:
        if self._reader is None:
            queries = TopicPartition(DELAY_QUERIES, 0)
            end = self._administrator().offsets([queries], At.LATEST)[queries]
            if end.error:
                raise ClientError(end.error)
            self._reader = Consumer(self._settings, queue_kbytes=1024, fetch_wait=0.2, reset="latest")
            self._reader.assign({queries: end.offset})
        return self._reader

    def _administrator(self) -> Admin:
        if self._admin is None:
            self._admin = Admin(self._settings, timeout=self._timeout)
        return self._admin

    def _send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        headers: OutgoingHeaders | None,
        partition: int = -1,
    ) -> Delivered:
        if self._producer is None or self._producer.fatal is not None:
            self._producer = Producer(self._settings, linger_ms=0, delivery_timeout=self._timeout)
        return self._producer.send(topic, value, key, headers, partition, timeout=self._timeout)

    def _forget(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._producer is not None:
            self._producer.close(0.5)
        if self._admin is not None:
            self._admin.close()
        self._reader = self._producer = self._admin = None


def _pending(partition: int, row: list[Any]) -> Pending:
    number, due, target, key, identity, size = row
    return Pending(
        partition=partition,
        row=number,
        due=due,
        target=target,
        key=None if key is None else base64.b64decode(key),
        id=identity,
        size=size,
    )
