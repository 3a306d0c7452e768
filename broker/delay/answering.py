"""Answers questions about what is pending, for the partitions that this process owns (see `broker.client.delays`)."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from typing import Any

from broker.client import END, Consumer, Producer, TopicPartition
from broker.client.delaying import DELAY_QUERIES
from broker.client.errors import ClientError
from broker.delay.book import Book
from broker.delay.service import Charge, Service

log = logging.getLogger("broker.delay.answering")


class Answering:
    """A thread of its own: it reads the stores' files and takes nothing from the workers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._books: dict[int, Book] = {}

    def run(self, stop: threading.Event) -> None:
        """Answer until told to stop."""
        while not stop.is_set():
            try:
                self._serve(stop)
            except ClientError as error:
                log.info("questions can't be answered: %s", error)
                stop.wait(1.0)

    def _serve(self, stop: threading.Event) -> None:
        reader = Consumer(self._service.settings, queue_kbytes=1024, fetch_wait=0.2, reset="latest")
        producer = Producer(self._service.settings, linger_ms=0, delivery_timeout=5.0)
        try:
            reader.assign({TopicPartition(DELAY_QUERIES, 0): END})
            while not stop.is_set():
                for record in reader.poll(1, 0.2):
                    question = _question(record.value)
                    if question is not None:
                        body = {"v": 1, "kind": "answer", "id": question["id"], "partitions": self.answer(question)}
                        producer.send(DELAY_QUERIES, json.dumps(body).encode(), record.key, None, 0, timeout=5.0)
        finally:
            reader.close()
            producer.close(0.5)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """By partition, for those in this process's charge."""
        wanted = question.get("partition")
        charges = [
            charge for charge in list(self._service.charges.values()) if wanted is None or wanted == charge.partition
        ]
        return {str(charge.partition): self._of(charge, question) for charge in charges}

    def _of(self, charge: Charge, question: Mapping[str, Any]) -> dict[str, Any]:
        worker = charge.worker
        if worker is None or not worker.ready:
            return {"trouble": charge.trouble}
        try:
            if question["ask"] == "cancelled":
                offset = int(question["offset"])
                # what was processed is noted before the position moves
                processed = worker.next > offset
                return {"processed": processed, "count": charge.tally.cancellations.get(offset) if processed else None}
            book = self._books.setdefault(charge.partition, Book(self._service.path(charge.partition)))
            if question["ask"] == "page":
                return {"rows": book.page(question, charge.partition)}
            if question["ask"] == "counts":
                return {"horizons": book.counts(int(time.time() * 1000)), **told(charge)}
            return {"trouble": f"{question['ask']!r} is not a question this service knows"}
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            return {"trouble": f"{type(error).__name__}: {error}"}


def told(charge: Charge) -> dict[str, Any]:
    """What a partition's worker did, and how punctually."""
    tally = charge.tally
    errors = sorted(tally.errors_ms.copy())
    return {
        "taken": tally.taken,
        "fired": tally.fired,
        "cancelled": tally.cancelled,
        "refused": tally.refused,
        "p50": errors[len(errors) // 2] if errors else None,
        "p99": errors[len(errors) * 99 // 100] if errors else None,
    }


def _question(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or b"{}")
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("kind") != "question" or found.get("v") != 1 or "id" not in found:
        return None
    return found
