"""One record's attempts: handler, retries, dead letter, ledger."""

from collections.abc import Iterator

import pytest

from broker.client import records
from broker.client.errors import TimedOut, UnknownTopic
from broker.client.handling import Attempt, DeadLetters, Handling, Verdict
from broker.client.ledger import SqliteLedger
from broker.client.policy import DeadLetterTopic, Reject, Retry
from broker.client.records import Delivered, Record

RECORD = Record("orders", 2, 7, 1_700_000_000_000, b"k", b"v", (("a", b"1"), ("sluice.error.reason", b"old")))


class Sends:
    """A producer that keeps what it is given, or refuses."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes | None, dict[str, object]]] = []
        self.refuse: Exception | None = None

    def send(self, topic: str, value: bytes | None, key: bytes | None, headers: list[tuple[str, object]]) -> Delivered:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((topic, value, key, dict(headers)))
        return Delivered(topic, 0, len(self.sent) - 1)


class Scene:
    def __init__(self, ledger: SqliteLedger) -> None:
        self.now = 1000.0
        self.calls = 0
        self.error: Exception | None = None
        self.producer = Sends()
        self.created: list[str] = []
        self.ledger = ledger
        self.letters = DeadLetters(self.producer, DeadLetterTopic(), self.created.append)  # type: ignore[arg-type]

    def handling(self, *, ledger: bool = False) -> Handling:
        def handle(_: Record) -> None:
            self.calls += 1
            if self.error is not None:
                raise self.error

        return Handling(
            "billing",
            handle,
            Retry(attempts=3, first=1, factor=2, longest=3),
            self.letters,
            self.ledger if ledger else None,
            lease=30,
            clock=lambda: self.now,
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    ledger = SqliteLedger(":memory:")
    yield Scene(ledger)
    ledger.close()


def test_a_handler_that_returns_settles_the_record(scene: Scene) -> None:
    assert scene.handling().attempt(RECORD, 0) == Attempt(Verdict.HANDLED)


def test_failures_wait_longer_and_longer_until_the_attempts_are_used_up(scene: Scene) -> None:
    scene.error = ValueError("no")
    handling = scene.handling()
    waits = [handling.attempt(RECORD, failures).wait for failures in (0, 1)]
    assert waits == [1, 2]
    assert handling.attempt(RECORD, 2).verdict is Verdict.DEAD
    assert scene.created == ["dlq.orders"]
    ((topic, value, key, headers),) = scene.producer.sent
    assert (topic, value, key) == ("dlq.orders", b"v", b"k")
    assert headers == {
        "a": b"1",
        records.ERROR_REASON: "handler",
        records.ERROR_DETAIL: "ValueError: no",
        records.ATTEMPTS: "3",
        records.ORIGIN_TOPIC: "orders",
        records.ORIGIN_PARTITION: "2",
        records.ORIGIN_OFFSET: "7",
        records.ORIGIN_TIMESTAMP: "1700000000000",
        records.ORIGIN_GROUP: "billing",
    }


def test_a_rejected_record_is_dead_at_once(scene: Scene) -> None:
    scene.error = Reject("not a number", reason="schema")
    assert scene.handling().attempt(RECORD, 0).verdict is Verdict.DEAD
    headers = scene.producer.sent[0][3]
    assert (headers[records.ERROR_REASON], headers[records.ERROR_DETAIL]) == ("schema", "not a number")
    assert headers[records.ATTEMPTS] == "1"


@pytest.mark.parametrize("problem", [TimedOut("no answer"), UnknownTopic(3, "UNKNOWN_TOPIC_OR_PARTITION")])
def test_a_dead_letter_that_cant_be_written_settles_nothing_and_is_written_later_without_the_handler(
    scene: Scene, problem: Exception
) -> None:
    scene.error = Reject("no")
    scene.producer.refuse = problem
    handling = scene.handling()
    assert handling.attempt(RECORD, 0).verdict is Verdict.UNWRITTEN
    assert not handling.attempt(RECORD, 0).settled
    scene.producer.refuse = None
    assert handling.attempt(RECORD, 0).verdict is Verdict.DEAD
    assert scene.calls == 1
    assert scene.producer.sent[0][3][records.ATTEMPTS] == "1"


def test_with_a_ledger_a_record_is_handled_once(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HANDLED
    assert handling.attempt(RECORD, 0).verdict is Verdict.REPEATED
    assert scene.calls == 1


def test_copies_of_one_message_count_as_one_by_its_id(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    copies = [Record("orders", 0, n, 0, None, b"v", ((records.MESSAGE_ID, b"m-1"),)) for n in range(2)]
    assert [handling.attempt(copy, 0).verdict for copy in copies] == [Verdict.HANDLED, Verdict.REPEATED]


def test_a_failed_attempt_gives_the_claim_back(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    scene.error = ValueError("no")
    assert handling.attempt(RECORD, 0).verdict is Verdict.FAILED
    scene.error = None
    assert handling.attempt(RECORD, 1).verdict is Verdict.HANDLED


def test_a_record_that_another_holds_waits_and_spends_no_attempt(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    scene.ledger.claim(handling.key(RECORD), "another", now=scene.now, lease=30)
    outcome = handling.attempt(RECORD, 0)
    assert (outcome.verdict, outcome.wait, scene.calls) == (Verdict.HELD, 1.0, 0)


def test_a_handler_that_overslept_its_lease_doesnt_settle_the_record(scene: Scene) -> None:
    def oversleep(_: Record) -> None:
        scene.now += 60
        scene.ledger.claim("billing|orders/2/7", "another", now=scene.now, lease=30)

    handling = Handling("billing", oversleep, Retry(), scene.letters, scene.ledger, lease=30, clock=lambda: scene.now)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HELD


def test_a_lease_is_renewed_while_the_handler_works(scene: Scene) -> None:
    def work(_: Record) -> None:
        for _step in range(10):
            scene.now += 10
            handling.renew()
            other = scene.ledger.claim("billing|orders/2/7", "another", now=scene.now, lease=30)
            assert other.state.value == "held"

    handling = Handling("billing", work, Retry(), scene.letters, scene.ledger, lease=30, clock=lambda: scene.now)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HANDLED
