"""Kafka's codes become named exceptions."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from broker.client import errors
from broker.wire.errors import ErrorCode


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, errors.UnknownTopic),
        (36, errors.TopicExists),
        (17, errors.InvalidTopic),
        (40, errors.InvalidConfig),
        (29, errors.NotAuthorized),
        (68, errors.GroupNotEmpty),
        (69, errors.UnknownGroup),
        (10, errors.RecordTooLarge),
        (35, errors.UnsupportedByCluster),
        (58, errors.AuthenticationFailed),
        (90, errors.Fenced),
        (KafkaError._TRANSPORT, errors.Unreachable),
        (KafkaError._MSG_TIMED_OUT, errors.TimedOut),
        (KafkaError._UNKNOWN_TOPIC, errors.UnknownTopic),
        (KafkaError._QUEUE_FULL, errors.QueueFull),
    ],
)
def test_a_code_becomes_its_exception(code: int, kind: type[errors.ClientError]) -> None:
    assert type(errors.from_code(code)) is kind


def test_every_code_of_the_protocol_becomes_some_exception() -> None:
    for code in ErrorCode:
        if code != ErrorCode.NONE:
            assert isinstance(errors.from_code(int(code), "why"), errors.ClientError)


def test_what_confluent_kafka_raises_keeps_code_and_name() -> None:
    raised = errors.translate(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS, "again")))
    assert isinstance(raised, errors.TopicExists)
    assert (raised.code, raised.name) == (36, "TOPIC_ALREADY_EXISTS")
    assert not raised.retriable
