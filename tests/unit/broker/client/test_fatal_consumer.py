"""A consumer that can't go on says so, whichever way the library told it."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from broker.client import ClientError, Consumer, Settings


class Fenced:
    """What `consume` gives once another member took the same instance id."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._FATAL, "Static consumer fenced by other consumer")


class Given:
    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)

    def consume(self, count: int, timeout: float) -> list[Any]:
        given, self.messages = self.messages, []
        return given

    def close(self) -> None:
        pass


def test_a_fatal_error_among_the_records_is_fatal_for_good() -> None:
    consumer = Consumer(Settings(bootstrap="127.0.0.1:1"))
    consumer.close()
    consumer._raw = Given(Fenced())  # type: ignore[assignment]  # what librdkafka would give
    with pytest.raises(ClientError, match="fenced"):
        consumer.poll(10, 0.0)
    assert consumer.fatal is not None
    with pytest.raises(ClientError, match="fenced"):
        consumer.poll(10, 0.0)
