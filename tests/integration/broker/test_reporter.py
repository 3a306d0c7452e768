"""What the broker tells of itself."""

from __future__ import annotations

import json
from typing import Any

from broker.server.reporter import TOPIC, Reporter
from tests.integration.broker.wire_client import Running, fetch_fields, produce, values_of


async def told(running: Running) -> list[dict[str, Any]]:
    root = await running.root()
    answer = await root.call("Fetch", 12, **fetch_fields(TOPIC, (0, 0)))
    return [json.loads(value) for value in values_of(answer.responses[0].partitions[0].records)]


async def test_traffic_and_refusals_are_told_to_the_super_user(running: Running) -> None:
    running.assembly.reporter.stop()
    await running.broker.topics.create("t", 1)
    connection = await running.connect()
    await produce(connection, "t", b"a", b"b")
    await produce(connection, "__consumer_offsets", b"x")
    reporter = Reporter(running.broker, running.assembly.server)
    reporter.write()
    reporter.write()
    await produce(connection, "t", b"c")
    found = await told(running)
    assert len(found) == 1, "nothing new to tell the second time"
    assert found[0]["produce"]["records"] == 2
    assert found[0]["storage"]["ok"]
    anonymous = found[0]["authorization"]["principals"][0]
    assert anonymous["principal"] == "User:ANONYMOUS"
    assert anonymous["last_denied"] == {
        "operation": "WRITE",
        "resource_type": "TOPIC",
        "name": "__consumer_offsets",
    }
