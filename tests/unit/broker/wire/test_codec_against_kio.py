"""Our codec against kio's, an implementation of the protocol by other people from the same definitions.

kio reads only what we wrote, never foreign bytes. Its modules are imported one by one, as each is needed.
"""

from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from kio.serial import entity_reader, entity_writer

from broker.wire import codec, schema
from tests.unit.broker.wire.arbitrary import messages, names_and_versions

EXAMPLES = 12  # of each of 640 messages and versions

# What Kafka 4.4 has and this release of kio doesn't know yet: newer than kio, or, for AbortedTxn, not in the messages
# it is made from. They are compared with Kafka's own classes in tests/acceptance/kafka/test_messages.py.
NOT_IN_KIO = {
    ("AbortedTxn", 0),
    ("ApiVersionsRequest", 5),
    ("ApiVersionsResponse", 5),
    ("DeleteGroupsRequest", 3),
    ("DeleteGroupsResponse", 3),
    ("StreamsGroupDescribeRequest", 1),
    ("StreamsGroupDescribeResponse", 1),
    ("StreamsGroupHeartbeatRequest", 1),
    ("StreamsGroupHeartbeatResponse", 1),
    ("StreamsGroupTopologyDescriptionUpdateRequest", 0),
    ("StreamsGroupTopologyDescriptionUpdateResponse", 0),
    ("TxnOffsetCommitRequest", 6),
    ("TxnOffsetCommitResponse", 6),
    ("UnregisterControllerRequest", 0),
    ("UnregisterControllerResponse", 0),
}


def kio_class(name: str, version: int) -> type[Any]:
    kind = next((kind for kind in ("Request", "Response", "Header") if name.endswith(kind)), "data")
    folder = name if kind in ("Header", "data") else name.removesuffix(kind)
    module = f"kio.schema.{schema.snake_case(folder)}.v{version}.{kind.lower()}"
    found: type[Any] = getattr(import_module(module), name)
    return found


@cache
def kio_codec(name: str, version: int) -> tuple[Any, Any]:
    cls = kio_class(name, version)
    return entity_reader(cls), entity_writer(cls)


def through_kio(name: str, version: int, data: bytes) -> bytes:
    """The bytes that kio writes for the message it reads from ours."""
    read, write = kio_codec(name, version)
    message, size = read(data, 0)
    assert size == len(data)
    out = BytesIO()
    write(out, message)
    return out.getvalue()


@pytest.mark.parametrize("name", schema.message_names())
def test_every_version_reads_back_what_it_wrote_and_means_the_same_to_kio(name: str) -> None:
    for version in (version for each, version in names_and_versions() if each == name):
        compare(name, version)


def compare(name: str, version: int) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(messages(name, version))
    def check(message: Any) -> None:
        data = codec.encode(message, version)
        assert codec.decode(name, version, data) == message
        assert codec.decode(name, version, memoryview(bytearray(data))) == message
        if (name, version) not in NOT_IN_KIO:
            assert through_kio(name, version, data) == data

    check()


@pytest.mark.parametrize(("name", "version"), sorted(NOT_IN_KIO))
def test_what_is_left_out_of_the_comparison_is_indeed_unknown_to_kio(name: str, version: int) -> None:
    with pytest.raises((ImportError, AttributeError)):
        kio_class(name, version)
