"""Other people's MQTT clients, unmodified, against the whole product: each QoS there and back, through the log."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import queue
import shutil
import subprocess
from pathlib import Path
from typing import Any

import aiomqtt
import gmqtt
import paho.mqtt.client as paho
import pytest
from amqtt.client import MQTTClient
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.acceptance.kafka import java
from tests.acceptance.mqtt.conftest import Product

NODE = Path(__file__).resolve().parents[2] / "node" / "mqtt"
PATIENCE = 60


class Paho:
    """A connected paho client that queues what arrives."""

    def __init__(self, product: Product, client_id: str, protocol: int, **options: Any) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.subscribed: queue.Queue[list[Any]] = queue.Queue()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id,
            protocol=protocol,
            transport=options.pop("transport", "tcp"),
            **({} if protocol == paho.MQTTv5 else {"clean_session": options.pop("clean_session", True)}),
        )
        will = options.pop("will", None)
        if will is not None:
            self.client.will_set(*will)
        port = product.web_port if self.client.transport == "websockets" else product.port
        connected: queue.Queue[Any] = queue.Queue()
        self.client.on_connect = lambda client, userdata, flags, code, properties: connected.put((flags, code))
        self.client.on_message = lambda client, userdata, message: self.messages.put(message)
        self.client.on_subscribe = lambda client, userdata, mid, codes, properties: self.subscribed.put(codes)
        self.client.connect(product.host, port, **options)
        self.client.loop_start()
        self.flags, self.code = connected.get(timeout=PATIENCE)
        assert self.code == 0

    def subscribe(self, topic: str, qos: int) -> None:
        self.client.subscribe(topic, qos)
        self.subscribed.get(timeout=PATIENCE)

    def publish(self, topic: str, payload: bytes, qos: int, **more: Any) -> None:
        self.client.publish(topic, payload, qos, **more).wait_for_publish(PATIENCE)

    def next(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=PATIENCE)

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Break the connection without a DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()  # type: ignore[union-attr]  # connected, so it has one


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
@pytest.mark.parametrize("protocol", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
def test_paho_sends_and_receives_every_qos(product: Product, prefix: str, protocol: int, transport: str) -> None:
    client = Paho(product, f"{prefix}-p", protocol, transport=transport)
    client.subscribe(f"{prefix}/#", 2)
    for qos in (0, 1, 2):
        client.publish(f"{prefix}/{qos}", b"payload %d" % qos, qos)
        message = client.next()
        assert (message.topic, message.payload, message.qos) == (f"{prefix}/{qos}", b"payload %d" % qos, qos)
    client.stop()


def test_paho_gets_retained_messages_and_wills(product: Product, prefix: str) -> None:
    sender = Paho(product, f"{prefix}-s", paho.MQTTv311, will=(f"{prefix}/will", b"gone", 1))
    sender.publish(f"{prefix}/kept", b"kept", 1, retain=True)
    receiver = Paho(product, f"{prefix}-r", paho.MQTTv311)
    receiver.subscribe(f"{prefix}/#", 1)
    message = receiver.next()
    assert (message.payload, message.retain) == (b"kept", True)
    sender.vanish()
    message = receiver.next()
    assert (message.topic, message.payload) == (f"{prefix}/will", b"gone")
    receiver.publish(f"{prefix}/kept", b"", 1, retain=True)
    receiver.stop()


def test_paho_finds_what_came_while_it_was_away(product: Product, prefix: str) -> None:
    away = Paho(product, f"{prefix}-away", paho.MQTTv311, clean_session=False)
    away.subscribe(f"{prefix}/#", 1)
    away.stop()
    sender = Paho(product, f"{prefix}-s", paho.MQTTv311)
    for number in range(10):
        sender.publish(f"{prefix}/x", b"%d" % number, 1)
    back = Paho(product, f"{prefix}-away", paho.MQTTv311, clean_session=False)
    assert back.flags.session_present
    assert [back.next().payload for _ in range(10)] == [b"%d" % number for number in range(10)]
    back.stop()
    sender.stop()


def test_paho_5_properties_arrive_as_they_were_sent(product: Product, prefix: str) -> None:
    client = Paho(product, f"{prefix}-5", paho.MQTTv5)
    client.subscribe(f"{prefix}/#", 1)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.ResponseTopic = f"{prefix}/answers"
    properties.CorrelationData = b"\x01\x02"
    properties.UserProperty = [("a", "1"), ("a", "2"), ("b", "ü")]
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 600
    client.publish(f"{prefix}/x", b"{}", 1, properties=properties)
    arrived = client.next().properties
    assert arrived is not None
    assert arrived.ContentType == "application/json"
    assert arrived.ResponseTopic == f"{prefix}/answers"
    assert arrived.CorrelationData == b"\x01\x02"
    assert arrived.UserProperty == [("a", "1"), ("a", "2"), ("b", "ü")]
    assert arrived.PayloadFormatIndicator == 1
    assert 590 <= arrived.MessageExpiryInterval <= 600
    client.stop()


async def test_aiomqtt_sends_and_receives_every_qos(product: Product, prefix: str) -> None:
    for version in (aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5):
        async with (
            asyncio.timeout(PATIENCE),
            aiomqtt.Client(product.host, product.port, identifier=f"{prefix}-a{version}", protocol=version) as client,
        ):
            topic = f"{prefix}/{version}"
            await client.subscribe(f"{topic}/#", qos=2)
            for qos in (0, 1, 2):
                await client.publish(f"{topic}/{qos}", b"payload %d" % qos, qos=qos)
                message = await anext(client.messages)
                assert (str(message.topic), message.payload, message.qos) == (
                    f"{topic}/{qos}",
                    b"payload %d" % qos,
                    qos,
                )


async def test_gmqtt_sends_and_receives_every_qos(product: Product, prefix: str) -> None:
    client = gmqtt.Client(f"{prefix}-g")
    arrived: asyncio.Queue[tuple[str, bytes, int]] = asyncio.Queue()
    subscribed = asyncio.Event()

    async def on_message(_: object, topic: str, payload: bytes, qos: int, properties: object) -> int:
        arrived.put_nowait((topic, payload, qos))
        return 0

    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    async with asyncio.timeout(PATIENCE):
        await client.connect(product.host, product.port)
        client.subscribe(f"{prefix}/#", qos=2)
        await subscribed.wait()
        for qos in (0, 1, 2):
            client.publish(f"{prefix}/{qos}", b"payload %d" % qos, qos=qos)
            assert await arrived.get() == (f"{prefix}/{qos}", b"payload %d" % qos, qos)
        await client.disconnect()


async def test_amqtts_client_sends_and_receives_every_qos(product: Product, prefix: str) -> None:
    logging.getLogger("transitions").setLevel(logging.ERROR)
    client = MQTTClient(client_id=f"{prefix}-m", config={"auto_reconnect": False})
    async with asyncio.timeout(PATIENCE):
        await client.connect(f"mqtt://{product.host}:{product.port}/")
        await client.subscribe([(f"{prefix}/#", 2)])
        for qos in (0, 1, 2):
            await client.publish(f"{prefix}/{qos}", b"payload %d" % qos, qos=qos)
            message = await client.deliver_message()
            assert message is not None
            assert (message.topic, bytes(message.data), message.qos) == (f"{prefix}/{qos}", b"payload %d" % qos, qos)
        await client.disconnect()


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="mosquitto_pub is not installed")
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquittos_programs_send_and_receive_every_qos(product: Product, prefix: str, version: str) -> None:
    where = ["-h", product.host, "-p", str(product.port), "-V", version]
    for qos in ("0", "1", "2"):
        topic = f"{prefix}/{qos}"
        subscriber = subprocess.Popen(
            ["stdbuf", "-oL", "mosquitto_sub", *where, "-t", topic, "-q", qos, "-C", "1", "-W", str(PATIENCE), "-d"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert subscriber.stdout is not None
        for line in subscriber.stdout:
            if "Subscribed" in line:
                break
        publisher = ["mosquitto_pub", *where, "-t", topic, "-q", qos, "-m", f"payload {qos}"]
        subprocess.run(publisher, check=True, timeout=PATIENCE)
        assert f"payload {qos}" in subscriber.stdout.read()
        assert subscriber.wait(PATIENCE) == 0


@pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)
def test_mqtt_js_sends_and_receives_every_qos(product: Product, prefix: str) -> None:
    digest = hashlib.sha256((NODE / "package.json").read_bytes()).hexdigest()[:16]
    folder = java.cache() / f"mqtt-js-{digest}"
    with open(java.cache() / "mqtt-js.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "node_modules" / "mqtt").exists():
            folder.mkdir(exist_ok=True)
            shutil.copy(NODE / "package.json", folder)
            command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
            if outcome.returncode:
                pytest.skip(f"MQTT.js can't be had: {outcome.stderr[-500:]}")
    shutil.copy(NODE / "round_trip.js", folder)
    urls = [f"mqtt://{product.host}:{product.port}", f"ws://{product.host}:{product.web_port}/mqtt"]
    command = ["node", "round_trip.js", prefix, *urls]
    outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert outcome.stdout.strip() == "ok", outcome.stderr


@pytest.mark.skipif(not java.installed(), reason="java and mvn are not installed")
def test_pahos_java_clients_send_and_receive_every_qos(product: Product, prefix: str) -> None:
    try:
        command = java.command("RoundTrip", f"tcp://{product.host}:{product.port}", prefix, module="mqtt")
    except java.JavaMissing as error:
        pytest.skip(str(error))
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert outcome.stdout.strip() == "ok", outcome.stderr
