"""paho clients that remember what happened to them, and the operator's side of the gateway: records in its topics."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties

from broker.client import Consumer, Record, TopicPartition, producer
from broker.client.administration.types import At
from gateway import contract, passwords
from gateway.contract import BANS, CONTROL, DEVICES, POLICIES, ROUTES, Ban, Control, Device
from gateway.policy import Policy
from gateway.routes import Downlink, Uplink
from tests.acceptance.gateway.stack import Neighbour, Stack


def until(condition: Callable[[], Any], timeout: float = 120.0) -> bool:
    """Poll; whether it came true in time."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


class Device311:
    """A connected client. `received` are (topic, payload); `reason` is CONNACK's."""

    version = paho.MQTTv311

    def __init__(
        self, stack: Stack | Neighbour, client_id: str, user: str = "", password: str = "", **options: Any
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.retained: list[tuple[str, bytes]] = []
        self.messages: list[paho.MQTTMessage] = []
        self.granted: list[int] = []
        self.reason: int | None = None
        self.session_present = False
        self.gone = threading.Event()
        self._subscribed = threading.Event()
        self.client = self._make(client_id, options.pop("clean", True))
        if user:
            self.client.username_pw_set(user, password)
        if "will" in options:
            topic, payload = options.pop("will")
            self.client.will_set(topic, payload, qos=1)
        self.client.on_connect = self._connected
        self.client.on_message = self._message
        self.client.on_subscribe = self._granted
        self.client.on_disconnect = lambda *_: self.gone.set()
        self.client.reconnect_on_failure = False  # type: ignore[attr-defined]  # read by loop_forever
        self._connect(stack, options)
        self.client.loop_start()
        assert until(lambda: self.reason is not None or self.gone.is_set()), "no answer to CONNECT"

    def _make(self, client_id: str, clean: bool) -> paho.Client:
        return paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean,
            protocol=self.version,
            reconnect_on_failure=False,
        )

    def _connect(self, stack: Stack | Neighbour, options: dict[str, Any]) -> None:
        if "tls" in options:
            self.client.tls_set_context(options["tls"])
        self.client.connect("127.0.0.1", options.get("port", stack.port), keepalive=30)

    def _connected(self, _: Any, __: Any, flags: Any, reason: Any, ___: Any) -> None:
        self.session_present = bool(flags.session_present)
        self.reason = reason.value

    def _message(self, _: Any, __: Any, message: paho.MQTTMessage) -> None:
        self.messages.append(message)
        (self.retained if message.retain else self.received).append((message.topic, message.payload))

    def _granted(self, _: Any, __: Any, ___: Any, reasons: Any, ____: Any) -> None:
        self.granted = [each.value for each in reasons]
        self._subscribed.set()

    def subscribe(self, *filters: str, qos: int = 1) -> list[int]:
        self._subscribed.clear()
        self.client.subscribe([(each, qos) for each in filters])
        assert self._subscribed.wait(60), "no SUBACK"
        return self.granted

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(60)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def break_off(self) -> None:
        """Without a DISCONNECT."""
        with contextlib.suppress(OSError, AttributeError):
            self.client.socket().close()  # type: ignore[union-attr]  # it is connected
        self.client.loop_stop()


class Device5(Device311):
    version = paho.MQTTv5

    def _make(self, client_id: str, clean: bool) -> paho.Client:
        self._clean = clean
        return paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=self.version)

    def _connect(self, stack: Stack | Neighbour, options: dict[str, Any]) -> None:
        properties = Properties(1)  # type: ignore[no-untyped-call]  # CONNECT
        properties.SessionExpiryInterval = options.get("expiry", 0)
        self.client.connect("127.0.0.1", stack.port, keepalive=30, clean_start=self._clean, properties=properties)


class Operator:
    """Writes what the console would write, reads what consumers would read."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._producer = producer(stack.cluster)

    def device(self, name: str, **options: Any) -> str:
        """Register; the secret."""
        secret, credential = passwords.generate()
        self.put(DEVICES, name, Device(name=name, credentials=(credential,), **options))
        return secret

    def policy(self, name: str, **options: Any) -> None:
        self.put(POLICIES, name, Policy(name=name, **options))

    def route(self, route: Uplink | Downlink) -> None:
        self.put(ROUTES, route.name, route)

    def ban(self, ban: Ban) -> None:
        self.put(BANS, ban.key, ban)

    def order(self, verb: str, client_id: str) -> None:
        self.put(CONTROL, client_id, Control(verb=verb, client_id=client_id, actor="test"))

    def put(self, topic: str, key: str, record: Any) -> None:
        value = None if record is None else contract.encode(record)
        self._producer.send(topic, value, key.encode())

    def send(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        self._producer.send(topic, value, key)

    def records(self, topic: str) -> list[Record]:
        """Everything a topic holds."""
        with self.stack.admin() as admin:
            found = admin.topics([topic])
            if topic not in found:
                return []
            partitions = [TopicPartition(topic, each.index) for each in found[topic].partitions]
            ends = admin.offsets(partitions, At.LATEST, committed_only=True)
        left = {key: end.offset for key, end in ends.items() if end.offset}
        consumer = Consumer(self.stack.cluster, overrides={"enable.partition.eof": True})
        consumer.assign(dict.fromkeys(left, 0))
        records: list[Record] = []

        def read() -> bool:
            for record in consumer.poll(1000, 0.05):
                records.append(record)
                if record.offset + 1 >= left.get(record.origin, 0):
                    left.pop(record.origin, None)
            for key, end in consumer.ends.items():
                if end >= left.get(key, 0):
                    left.pop(key, None)
            return not left

        assert not left or until(read), "the topic could not be read"
        consumer.close()
        return records

    def close(self) -> None:
        self._producer.close()


@contextlib.contextmanager
def operating(stack: Stack) -> Iterator[Operator]:
    operator = Operator(stack)
    try:
        yield operator
    finally:
        operator.close()
