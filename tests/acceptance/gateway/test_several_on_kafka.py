"""The same two gateways with Apache Kafka behind them: what they lean on is Kafka's, not the embedded broker's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.gateway.people import Device311, operating, until
from tests.acceptance.gateway.stack import Neighbour, Stack
from tests.acceptance.kafka import java
from tests.acceptance.kafka.apache import ApacheKafka


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Stack, Neighbour]]:
    if not java.installed():
        pytest.skip("java and mvn are not installed")
    kafka = ApacheKafka().start()
    stack = Stack(tmp_path, SLUICE_KAFKA=kafka.bootstrap)
    other = Neighbour(stack, "neighbour")
    try:
        stack.gateway.start()
        other.gateway.start()
        yield stack, other
    finally:
        stack.stop()
        other.gateway.kill()
        kafka.stop()


def test_sessions_wills_and_shares_are_right_across_two_gateways(pair: tuple[Stack, Neighbour]) -> None:
    here, there = pair
    with operating(here) as operator:
        keeper = Device311(here, "keeper", clean=False)
        keeper.subscribe("k/#", qos=2)
        keeper.close()
        writer = Device311(there, "writer")
        for number in range(10):
            writer.publish("k/x", b"%d" % number, qos=2)
        moved = Device311(there, "keeper", clean=False)
        assert moved.session_present
        assert until(lambda: len(moved.received) >= 10)
        assert [int(payload) for _, payload in moved.received] == list(range(10))
        back = Device311(here, "keeper", clean=False)
        assert moved.gone.wait(60) and back.session_present and back.received == []
        members = [Device311(here, "here"), Device311(there, "there")]
        for member in members:
            member.subscribe("$share/crew/job/#")
        crowd = [Device311(there, f"writer-{number}") for number in range(8)]
        for number in range(5):
            for each in crowd:
                each.publish("job/x", f"{number}-{id(each)}".encode())

        def done() -> list[bytes]:
            return [payload for member in members for _, payload in member.received]

        assert until(lambda: len(done()) >= 40)
        assert len(set(done())) == len(done()) == 40
        Device311(here, "mortal", will=("will/mortal", b"gateway died"))
        here.gateway.kill()
        writer.publish("k/x", b"while nobody looked", qos=2)
        last = Device311(there, "keeper", clean=False)
        assert last.session_present
        assert until(lambda: [payload for _, payload in last.received] == [b"while nobody looked"])

        def wills() -> int:
            return len([each for each in operator.records("mqtt.messages") if each.value == b"gateway died"])

        assert until(lambda: wills() == 1)
