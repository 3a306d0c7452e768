from __future__ import annotations

from pathlib import Path

import paho.mqtt.client as paho

from tests.acceptance.gateway.stack import Stack
from tests.acceptance.mqtt.conftest import Product
from tests.acceptance.mqtt.test_foreign_clients import Paho


def test_the_gateway_stops_in_time_although_the_broker_is_gone(tmp_path: Path) -> None:
    stack = Stack(tmp_path).start()
    try:
        client = Paho(Product("127.0.0.1", stack.port, 0), "stays", paho.MQTTv311, clean_session=False)
        client.subscribe("a/#", 2)
        client.publish("a/b", b"x", 2)
        client.next()
        stack.broker.kill()
        client.client.publish("a/b", b"never durable", 1)
        assert stack.gateway.stop(timeout=60) == 0
        client.client.loop_stop()
    finally:
        stack.stop()
