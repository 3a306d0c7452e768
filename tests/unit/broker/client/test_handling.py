"""One record's attempts: handler, retries in place and by ladder, dead letter, expiry, ledger."""

from collections.abc import Iterator

import pytest

from broker.client import records
from broker.client.handling import Attempt, Handling, Verdict
from broker.client.ladder import RetryTopic
from broker.client.ledger import SqliteLedger
from broker.client.policy import ORDERED, ROCKETMQ, Expired, Ladder, Order, Reject, Retry, retry_for
from broker.client.records import Headers, Record

RECORD = Record("orders", 2, 7, 1_700_000_000_000, b"k", b"v", (("a", b"1"), ("sluice.error.reason", b"old")))
NOW = 1_700_000_100.0


class Scene:
    def __init__(self, ledger: SqliteLedger) -> None:
        self.now = NOW
        self.calls: list[Record] = []
        self.error: Exception | None = None
        self.ledger = ledger

    def handling(
        self, *, ledger: bool = False, ladder: Ladder | None = None, expired: Expired = Expired.BURY
    ) -> Handling:
        def handle(record: Record) -> None:
            self.calls.append(record)
            if self.error is not None:
                raise self.error

        return Handling(
            "billing",
            handle,
            Retry(attempts=3, first=1, factor=2, longest=3),
            RetryTopic(ladder, "billing") if ladder else None,
            None,
            self.ledger if ledger else None,
            expired=expired,
            lease=30,
            clock=lambda: self.now,
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    ledger = SqliteLedger(":memory:")
    yield Scene(ledger)
    ledger.close()


def written(attempt: Attempt) -> dict[str, object]:
    assert attempt.outgoing is not None
    return dict(attempt.outgoing.headers)


def in_retry_topic(attempt: Attempt, offset: int = 0) -> Record:
    """The record as the retry topic has it."""
    out = attempt.outgoing
    assert out is not None
    headers = tuple((name, value.encode() if isinstance(value, str) else value) for name, value in out.headers)
    return Record(out.topic, out.partition, offset, int(NOW * 1000), out.key, out.value, headers)


def test_a_handler_that_returns_settles_the_record(scene: Scene) -> None:
    assert scene.handling().attempt(RECORD, 0) == Attempt(Verdict.HANDLED)


def test_failures_wait_longer_and_longer_until_the_attempts_are_used_up(scene: Scene) -> None:
    scene.error = ValueError("no")
    handling = scene.handling()
    waits = [handling.attempt(RECORD, failures).wait for failures in (0, 1)]
    assert waits == [1, 2]
    last = handling.attempt(RECORD, 2)
    assert last.verdict is Verdict.DEAD
    assert last.outgoing is not None
    assert (last.outgoing.topic, last.outgoing.value, last.outgoing.key) == ("dlq.orders", b"v", b"k")
    assert written(last) == {
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
    letter = written(scene.handling(ladder=Ladder()).attempt(RECORD, 0))
    assert (letter[records.ERROR_REASON], letter[records.ERROR_DETAIL]) == ("schema", "not a number")
    assert letter[records.ATTEMPTS] == "1"


def test_ordered_groups_retry_at_rocketmqs_fixed_pace_and_others_with_back_off() -> None:
    assert [ORDERED.wait(failures) for failures in (1, 2, 16)] == [3, 3, 3]
    assert (retry_for(Order.KEY), retry_for(Order.PARTITION), retry_for(Order.NONE)) == (ORDERED, Retry(), Retry())


def test_the_ladder_is_rocketmqs_sixteen_steps_and_then_the_record_is_dead(scene: Scene) -> None:
    scene.error = ValueError("no")
    handling = scene.handling(ladder=Ladder())
    record, waits = RECORD, []
    while (attempt := handling.attempt(record, 0)).verdict is Verdict.MOVED:
        headers = written(attempt)
        waits.append(int(str(headers[records.DELIVER_AT])) / 1000 - scene.now)
        assert headers[records.ATTEMPTS] == str(len(waits))
        record = in_retry_topic(attempt)
        assert (record.topic, record.partition) == ("retry.billing", len(waits) - 1)
        assert handling.due(record) == scene.now + waits[-1]
        scene.now = handling.due(record)
    assert waits == list(ROCKETMQ)
    assert sum(waits) == 17_140
    assert attempt.verdict is Verdict.DEAD
    letter = written(attempt)
    assert (letter[records.ATTEMPTS], letter[records.ORIGIN_TOPIC]) == ("17", "orders")
    assert (letter[records.ORIGIN_PARTITION], letter[records.ORIGIN_OFFSET]) == ("2", "7")
    assert records.DELIVER_AT not in letter
    assert attempt.outgoing is not None
    assert attempt.outgoing.topic == "dlq.orders"
    # the handler is given the record as it was at first, however often it has moved
    assert {(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value) for r in scene.calls} == {
        ("orders", 2, 7, 1_700_000_000_000, b"k", b"v")
    }


def test_a_group_whose_name_no_topic_can_have_must_name_its_retry_topic() -> None:
    with pytest.raises(ValueError, match=r"give Ladder\(topic=...\) another"):
        RetryTopic(Ladder(), "two words")
    assert RetryTopic(Ladder(topic="again"), "two words").name == "again"


def test_an_expired_record_is_a_dead_letter_before_the_handler_sees_it(scene: Scene) -> None:
    record = Record("orders", 0, 1, 0, None, b"v", ((records.EXPIRES_AT, b"%d" % int(NOW * 1000)),))
    attempt = scene.handling().attempt(record, 0)
    assert attempt.verdict is Verdict.DEAD
    assert (written(attempt)[records.ERROR_REASON], written(attempt)[records.ATTEMPTS]) == ("expired", "0")
    assert scene.handling(expired=Expired.DISCARD).attempt(record, 0).verdict is Verdict.DISCARDED
    assert scene.calls == []
    scene.now -= 0.001
    assert scene.handling().attempt(record, 0).verdict is Verdict.HANDLED


def test_mqtt_expiry_counts_from_the_first_publish_however_often_the_record_moved(scene: Scene) -> None:
    record = Record("orders", 0, 1, int(NOW * 1000), None, b"v", (("mqtt.message.expiry", b"60"),))
    handling = scene.handling(ladder=Ladder(delays=(30.0, 30.0)))
    scene.error = ValueError("no")
    once = in_retry_topic(handling.attempt(record, 0))
    scene.now += 30
    twice = in_retry_topic(handling.attempt(once, 0))
    scene.now += 30
    attempt = handling.attempt(twice, 0)
    assert written(attempt)[records.ERROR_REASON] == "expired"
    assert len(scene.calls) == 2


def test_with_a_ledger_a_record_is_handled_once(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HANDLED
    assert handling.attempt(RECORD, 0).verdict is Verdict.REPEATED
    assert len(scene.calls) == 1


def test_copies_of_one_message_count_as_one_by_its_id_and_a_redrive_as_another(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    identity = (records.MESSAGE_ID, b"m-1")
    copies = [Record("orders", 0, n, 0, None, b"v", (identity,)) for n in range(2)]
    assert [handling.attempt(copy, 0).verdict for copy in copies] == [Verdict.HANDLED, Verdict.REPEATED]
    redriven = Record("orders", 0, 5, 0, None, b"v", (identity, (records.REDRIVE_COUNT, b"1")))
    assert handling.attempt(redriven, 0).verdict is Verdict.HANDLED


def test_ids_that_are_no_text_are_as_different_as_their_bytes(scene: Scene) -> None:
    """Taken for one, the second message would be skipped as a copy of the first, and be lost."""
    handling = scene.handling(ledger=True)
    ids = (b"\xff", b"\xfe", b"\xc3", "\ufffd".encode(), b"caf\xe9", b"caf\xea")
    given = [Record("orders", 0, n, 0, None, b"v", ((records.MESSAGE_ID, id),)) for n, id in enumerate(ids)]
    assert [handling.attempt(each, 0).verdict for each in given] == [Verdict.HANDLED] * len(ids)
    assert [handling.attempt(each, 0).verdict for each in given] == [Verdict.REPEATED] * len(ids)


@pytest.mark.parametrize("nothing", [(), ((records.MESSAGE_ID, None),), ((records.MESSAGE_ID, b""),)])
def test_without_an_id_a_records_place_is_its_name(scene: Scene, nothing: Headers) -> None:
    handling = scene.handling(ledger=True)
    first, second = (Record("orders", 0, n, 0, None, b"v", nothing) for n in range(2))
    verdicts = [handling.attempt(each, 0).verdict for each in (first, second, first)]
    assert verdicts == [Verdict.HANDLED, Verdict.HANDLED, Verdict.REPEATED]


@pytest.mark.parametrize("count", [b"-1", b"0", b"9" * 25, b"many", b"\xff", b""])
def test_a_redrive_count_that_is_none_is_as_if_it_were_not_there(scene: Scene, count: bytes) -> None:
    handling = scene.handling(ledger=True)
    plain = Record("orders", 0, 1, 0, None, b"v", ((records.MESSAGE_ID, b"m-1"),))
    odd = Record("orders", 0, 2, 0, None, b"v", (*plain.headers, (records.REDRIVE_COUNT, count)))
    assert handling.odd(odd) == [records.REDRIVE_COUNT]
    assert [handling.attempt(each, 0).verdict for each in (plain, odd)] == [Verdict.HANDLED, Verdict.REPEATED]


def test_a_failed_attempt_gives_the_claim_back(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    scene.error = ValueError("no")
    assert handling.attempt(RECORD, 0).verdict is Verdict.FAILED
    scene.error = None
    assert handling.attempt(RECORD, 1).verdict is Verdict.HANDLED


def test_a_move_holds_its_claim_until_it_is_durable_and_a_dead_letter_is_done_for_good(scene: Scene) -> None:
    handling = scene.handling(ledger=True, ladder=Ladder(delays=(1.0,)))
    scene.error = ValueError("no")
    first = handling.attempt(RECORD, 0)
    assert first.verdict is Verdict.MOVED
    assert handling.attempt(RECORD, 0).verdict is Verdict.HELD
    handling.close(first, written=True)
    moved = in_retry_topic(first)
    second = handling.attempt(moved, 0)
    assert second.verdict is Verdict.DEAD
    handling.close(second, written=False)
    third = handling.attempt(moved, 0)
    handling.close(third, written=True)
    assert handling.attempt(moved, 0).verdict is Verdict.REPEATED


def test_a_record_that_another_holds_waits_and_spends_no_attempt(scene: Scene) -> None:
    handling = scene.handling(ledger=True)
    scene.ledger.claim(handling.key(RECORD), "another", now=scene.now, lease=30)
    outcome = handling.attempt(RECORD, 0)
    assert (outcome.verdict, outcome.wait, scene.calls) == (Verdict.HELD, 1.0, [])


def test_a_handler_that_overslept_its_lease_doesnt_settle_the_record(scene: Scene) -> None:
    def oversleep(_: Record) -> None:
        scene.now += 60
        scene.ledger.claim("billing|orders/2/7", "another", now=scene.now, lease=30)

    handling = Handling("billing", oversleep, Retry(), ledger=scene.ledger, lease=30, clock=lambda: scene.now)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HELD


def test_a_lease_is_renewed_while_the_handler_works(scene: Scene) -> None:
    def work(_: Record) -> None:
        for _step in range(10):
            scene.now += 10
            handling.renew()
            other = scene.ledger.claim("billing|orders/2/7", "another", now=scene.now, lease=30)
            assert other.state.value == "held"

    handling = Handling("billing", work, Retry(), ledger=scene.ledger, lease=30, clock=lambda: scene.now)
    assert handling.attempt(RECORD, 0).verdict is Verdict.HANDLED
