"""What becomes of a transaction whose first attempt fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.client.errors import ClientError, ClusterError, Fenced, RecordTooLarge
from gateway.contract import GATEWAY_DEAD_LETTERS
from gateway.storage.exactly import Lane

WRITES = [("mqtt.messages", b"payload", b"device", None), ("__sluice_sessions", b"1", b"device\0\1", None)]


class Failed:
    def __init__(self, error: ClientError) -> None:
        self.error = error
        self.topic, self.value = "mqtt.messages", b"payload"


class Batch:
    def __init__(self, producer: FakeProducer) -> None:
        self._producer = producer
        self.failures: list[Failed] = []

    def send(self, topic: str, value: bytes | None, key: bytes | None, headers: Any) -> None:
        self._producer.sent[-1].append((topic, value))

    def seal(self) -> None:
        pass


class FakeProducer:
    """Its first transaction can't be committed; the abort leaves one record with `error`."""

    fatal = None

    def __init__(self, error: ClientError) -> None:
        self._error = error
        self.sent: list[list[tuple[str, bytes | None]]] = []
        self._batch: Batch

    def init_transactions(self, timeout: float) -> None:
        pass

    def begin(self) -> None:
        self.sent.append([])

    def batch(self, done: Any) -> Batch:
        self._batch = Batch(self)
        return self._batch

    def commit(self, timeout: float) -> None:
        if len(self.sent) == 1:
            raise ClusterError(48, "INVALID_TXN_STATE")

    def abort(self, timeout: float) -> None:
        self._batch.failures.append(Failed(self._error))

    def close(self, timeout: float) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "topic"),
    [
        (ClusterError(-152, "_PURGE_QUEUE"), "mqtt.messages"),
        (ClusterError(-151, "_PURGE_INFLIGHT"), "mqtt.messages"),
        (ClusterError(56, "KAFKA_STORAGE_ERROR"), "mqtt.messages"),
        (RecordTooLarge(10, "MSG_SIZE_TOO_LARGE"), GATEWAY_DEAD_LETTERS),
    ],
)
async def test_only_a_record_that_is_refused_for_good_goes_to_the_dead_letters(error: ClientError, topic: str) -> None:
    producer = FakeProducer(error)
    lane = Lane(
        lambda: producer,  # type: ignore[arg-type,return-value]  # stands for a producer
        loop=asyncio.get_running_loop(),
        name="lane",
        fenced=lambda lane: None,
    )
    receipt = lane.add(list(WRITES))
    async with asyncio.timeout(60):
        while len(producer.sent) < 2 or not receipt.settled:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.01)
    assert [to for to, _ in producer.sent[1]] == [topic, "__sluice_sessions"]
    await lane.stop(1.0)


class FencedProducer(FakeProducer):
    """Another gateway has begun to use its id."""

    def commit(self, timeout: float) -> None:
        raise Fenced("a newer instance")


async def test_after_another_gateway_took_over_nothing_is_committed_until_it_is_known_what_is_still_here() -> None:
    made: list[FakeProducer] = []
    fenced: list[Lane] = []

    def make() -> Any:
        made.append(FakeProducer(ClientError("")) if made else FencedProducer(ClientError("")))
        made[-1].sent.append([])  # the transaction before
        return made[-1]

    async def until(came_true: Any) -> None:
        async with asyncio.timeout(10):
            while not came_true():  # noqa: ASYNC110  # polled
                await asyncio.sleep(0.01)

    lane = Lane(make, loop=asyncio.get_running_loop(), name="lane", fenced=fenced.append)
    first = lane.add(list(WRITES))
    await until(lambda: fenced and first.settled)
    waiting = lane.add(list(WRITES))  # of a session that may be the other gateway's
    await asyncio.sleep(0.1)
    assert first.failure is not None and not waiting.settled and len(made) == 1
    fenced[0].go_on()
    assert waiting.failure is not None
    again = lane.add(list(WRITES))
    await until(lambda: again.settled)
    assert again.failure is None and len(made) == 2 and len(made[1].sent) == 2
    await lane.stop(1.0)


class EndedProducer(FakeProducer):
    """It can't say what became of its transaction; `meanwhile` is called before it gives up."""

    meanwhile: Any = None

    def commit(self, timeout: float) -> None:
        self.meanwhile()
        self.fatal = ClientError("broken")
        raise self.fatal


async def test_what_was_handed_over_behind_a_transaction_that_failed_is_not_stored_before_it() -> None:
    """The device sends both again: what came second would be first in the log."""
    loop = asyncio.get_running_loop()
    made: list[FakeProducer] = []
    behind: list[Any] = []

    def make() -> Any:
        made.append(FakeProducer(ClientError("")) if made else EndedProducer(ClientError("")))
        if len(made) > 1:
            made[-1].sent.append([])  # the transaction before
        return made[-1]

    lane = Lane(make, loop=loop, name="lane", fenced=lambda lane: None)
    EndedProducer.meanwhile = lambda self: behind.append(lane.add(list(WRITES)))
    first = lane.add(list(WRITES))
    async with asyncio.timeout(10):
        while not (behind and behind[0].settled):  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.01)
    assert first.failure is not None and behind[0].failure is not None
    again = lane.add(list(WRITES))
    async with asyncio.timeout(10):
        while not again.settled:  # noqa: ASYNC110  # polled
            await asyncio.sleep(0.01)
    assert again.failure is None and len(made[1].sent) == 2
    await lane.stop(1.0)
