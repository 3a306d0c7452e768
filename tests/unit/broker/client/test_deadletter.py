"""Every known dead-letter convention is read."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.deadletter import describe
from broker.client.records import Record


def letter(topic: str = "dlq.orders", **headers: bytes) -> Record:
    return Record(topic, 0, 7, 1_700_000_000_000, b"k", b"v", tuple(headers.items()))


def test_our_own_headers_tell_why_where_and_how_often() -> None:
    found = describe(
        letter(
            **{
                "sluice.error.reason": b"handler",
                "sluice.error.detail": b"ValueError: no",
                "sluice.attempts": b"5",
                "sluice.origin.topic": b"orders",
                "sluice.origin.partition": b"3",
                "sluice.origin.offset": b"41",
                "sluice.origin.timestamp": b"1700000000000",
                "sluice.origin.group": b"billing",
                "sluice.message.id": b"m-1",
                "sluice.redrive.count": b"2",
                "mqtt.topic": b"a/b",
            }
        )
    )
    assert (found.convention, found.reason, found.detail, found.attempts) == ("sluice", "handler", "ValueError: no", 5)
    assert (found.topic, found.partition, found.offset, found.group) == ("orders", 3, 41, "billing")
    assert (found.timestamp, found.message_id, found.redrives) == (1700000000000, "m-1", 2)
    assert found.extra == {"mqtt.topic": "a/b"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"Offset rejected by client.", "rejected"),
        (b"Offset delivery count exceeded the threshold.", "attempts"),
        (b"something else", "other"),
    ],
)
def test_share_groups_of_kafka_tell_by_kip_1191(message: bytes, reason: str) -> None:
    found = describe(
        letter(
            **{
                "__dlq.errors.topic": b"orders",
                "__dlq.errors.partition": b"1",
                "__dlq.errors.offset": b"99",
                "__dlq.errors.group": b"workers",
                "__dlq.errors.delivery.count": b"5",
                "__dlq.errors.message": message,
            }
        )
    )
    assert (found.convention, found.reason, found.attempts) == ("kafka", reason, 5)
    assert (found.topic, found.partition, found.offset, found.group) == ("orders", 1, 99, "workers")


def test_spring_writes_numbers_as_big_endian_bytes() -> None:
    found = describe(
        letter(
            "orders-dlt",
            **{
                "kafka_dlt-original-topic": b"orders",
                "kafka_dlt-original-partition": struct.pack(">i", 2),
                "kafka_dlt-original-offset": struct.pack(">q", 12345678901),
                "kafka_dlt-original-timestamp": struct.pack(">q", 1700000000000),
                "kafka_dlt-original-timestamp-type": b"CreateTime",
                "kafka_dlt-original-consumer-group": b"billing",
                "kafka_dlt-exception-fqcn": b"org.springframework.kafka.listener.ListenerExecutionFailedException",
                "kafka_dlt-exception-cause-fqcn": b"java.lang.IllegalStateException",
                "kafka_dlt-exception-message": b"Listener failed",
                "kafka_dlt-exception-stacktrace": b"at ...",
                "retry_topic-attempts": struct.pack(">i", 4),
            },
        )
    )
    assert (found.convention, found.reason, found.detail) == ("spring", "IllegalStateException", "Listener failed")
    assert (found.topic, found.partition, found.offset) == ("orders", 2, 12345678901)
    assert (found.timestamp, found.group, found.attempts) == (1700000000000, "billing", 4)
    assert found.extra["exception-stacktrace"] == "at ..."


def test_kafka_connect_tells_its_connector_and_stage() -> None:
    found = describe(
        letter(
            **{
                "__connect.errors.topic": b"orders",
                "__connect.errors.partition": b"0",
                "__connect.errors.offset": b"17",
                "__connect.errors.connector.name": b"jdbc-sink",
                "__connect.errors.task.id": b"0",
                "__connect.errors.stage": b"VALUE_CONVERTER",
                "__connect.errors.class.name": b"org.apache.kafka.connect.json.JsonConverter",
                "__connect.errors.exception.class.name": b"org.apache.kafka.connect.errors.DataException",
                "__connect.errors.exception.message": b"bad JSON",
            }
        )
    )
    assert (found.convention, found.reason, found.detail) == ("connect", "DataException", "bad JSON")
    assert (found.topic, found.partition, found.offset, found.group) == ("orders", 0, 17, "connect-jdbc-sink")
    assert found.extra["stage"] == "VALUE_CONVERTER"


def test_rocketmq_names_the_group_in_the_topic() -> None:
    found = describe(
        letter("%DLQ%billing", DLQ_ORIGIN_TOPIC=b"orders", DLQ_ORIGIN_MESSAGE_ID=b"A0B1", RECONSUME_TIME=b"16")
    )
    assert (found.convention, found.topic, found.group) == ("rocketmq", "orders", "billing")
    assert (found.message_id, found.attempts) == ("A0B1", 16)


def test_pulsar_names_the_subscription_in_the_topic() -> None:
    found = describe(
        letter(
            "orders-billing-DLQ",
            REAL_TOPIC=b"persistent://public/default/orders",
            ORIGIN_MESSAGE_ID=b"12:3:-1",
            RECONSUMETIMES=b"3",
        )
    )
    assert (found.convention, found.topic) == ("pulsar", "persistent://public/default/orders")
    assert (found.group, found.message_id, found.attempts) == ("billing", "12:3:-1", 3)


def test_rabbitmq_tells_its_newest_death() -> None:
    deaths = [
        {
            "count": 3,
            "reason": "delivery_limit",
            "queue": "orders",
            "exchange": "shop",
            "routing-keys": ["orders.new"],
            "time": 1_700_000_000,
        },
        {"count": 1, "reason": "expired", "queue": "wait"},
    ]
    found = describe(letter(**{"x-death": json.dumps(deaths).encode()}))
    assert (found.convention, found.reason, found.attempts) == ("rabbitmq", "delivery_limit", 3)
    assert (found.topic, found.timestamp) == ("orders", 1_700_000_000_000)
    assert found.extra == {"exchange": "shop", "routing-keys": "orders.new", "deaths": "2"}


def test_artemis_tells_address_and_queue() -> None:
    found = describe(letter(_AMQ_ORIG_ADDRESS=b"orders", _AMQ_ORIG_QUEUE=b"billing", _AMQ_ORIG_MESSAGE_ID=b"5"))
    assert (found.convention, found.topic, found.group, found.message_id) == ("artemis", "orders", "billing", "5")


def test_ours_comes_first_where_a_record_has_been_dead_twice() -> None:
    found = describe(letter(**{"__dlq.errors.topic": b"first", "sluice.error.reason": b"handler"}))
    assert found.convention == "sluice"


def test_an_ordinary_record_has_no_convention() -> None:
    found = describe(letter("orders", x=b"1"))
    assert (found.convention, found.reason, found.topic) == ("", None, None)


NAMES = st.sampled_from(
    [
        *("sluice.error.reason", "sluice.attempts", "__dlq.errors.offset", "__dlq.errors.message", "x-death"),
        *("kafka_dlt-original-offset", "kafka_dlt-exception-fqcn", "retry_topic-attempts", "RECONSUME_TIME"),
        *("__connect.errors.offset", "REAL_TOPIC", "RECONSUMETIMES", "_AMQ_ORIG_ADDRESS", "_AMQ_ACTUAL_EXPIRY"),
        *("x-first-death-queue", "DLQ_ORIGIN_TOPIC"),
    ]
)
VALUES = st.one_of(st.none(), st.binary(max_size=30), st.integers().map(lambda n: str(n).encode()), st.just(b"[1,{}]"))


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6), st.text(max_size=20))
def test_no_header_however_strange_is_an_error(headers: list[tuple[str, bytes | None]], topic: str) -> None:
    describe(Record(topic, 0, 0, 0, None, None, tuple(headers)))
