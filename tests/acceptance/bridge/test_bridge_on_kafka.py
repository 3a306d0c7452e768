"""The same bridge with Apache Kafka behind it: ownership and positions are a consumer group's, whoever keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.bridge.conftest import Bridged
from tests.acceptance.bridge.flow import two_processes
from tests.acceptance.gateway.people import operating
from tests.acceptance.kafka import java
from tests.acceptance.kafka.apache import ApacheKafka


@pytest.fixture
def on_kafka(tmp_path: Path) -> Iterator[Bridged]:
    if not java.installed():
        pytest.skip("java and mvn are not installed")
    kafka = ApacheKafka().start()
    made: Bridged | None = None
    try:
        made = Bridged(tmp_path, SLUICE_KAFKA=kafka.bootstrap)
        made.name = "far"
        made.start()
        yield made
    finally:
        if made is not None:
            made.stop()
        kafka.stop()


def test_messages_go_both_ways_and_nothing_is_lost_when_the_process_that_runs_it_is_killed(on_kafka: Bridged) -> None:
    with operating(on_kafka.stack) as operator:
        two_processes(on_kafka, operator)
