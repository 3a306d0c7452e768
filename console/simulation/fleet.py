"""Simulated devices: one real MQTT connection each, through amqtt's client."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from amqtt.client import MQTTClient
from amqtt.errors import ClientError, ConnectError

from console.simulation.telemetry import Machine

CONNECT_SECONDS = 10.0
ACKNOWLEDGE_SECONDS = 30
BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(slots=True)
class Counts:
    """What happened so far."""

    online: int = 0
    acknowledged: int = 0
    failed: int = 0
    last_failure: str = ""


async def run_device(machine: Machine, uri: str, *, rate: float, qos: int, counts: Counts, stop: asyncio.Event) -> None:
    """Connect, publish `rate` messages a second until `stop`, and connect again with back-off when the gateway goes."""
    attempt = 0
    while not stop.is_set():
        client = MQTTClient(client_id=machine.client_id, config={"auto_reconnect": False, "keep_alive": 30})
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.connect(uri)
            attempt = 0
            counts.online += 1
            try:
                await publish(client, machine, rate=rate, qos=qos, counts=counts, stop=stop)
            finally:
                counts.online -= 1
        except (ConnectError, ClientError, OSError, TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and stop.is_set():
                raise
            counts.failed += 1
            counts.last_failure = f"{machine.client_id}: {error or type(error).__name__}"
        finally:
            try:
                async with asyncio.timeout(2):
                    await client.disconnect()
            except Exception as error:
                counts.last_failure = counts.last_failure or str(error)
        delay = BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)] * random.uniform(0.7, 1.3)
        attempt += 1
        await wait(stop, delay)


async def publish(
    client: MQTTClient, machine: Machine, *, rate: float, qos: int, counts: Counts, stop: asyncio.Event
) -> None:
    """Publish at a steady pace; a slow acknowledgement delays the next message rather than piling messages up."""
    due = time.monotonic() + random.random() / rate
    while not stop.is_set():
        await wait(stop, due - time.monotonic())
        if stop.is_set():
            return
        await client.publish(machine.topic, machine.report(time.time()), qos=qos, ack_timeout=ACKNOWLEDGE_SECONDS)
        counts.acknowledged += 1
        due = max(due + 1 / rate, time.monotonic() - 1)


async def wait(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, or return earlier when `stop` is set."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def run_fleet(
    machines: Sequence[Machine], uri: str, *, rate: float, qos: int, counts: Counts, stop: asyncio.Event
) -> None:
    """All devices at once; returns when `stop` is set and every connection is closed."""
    async with asyncio.TaskGroup() as group:
        for machine in machines:
            group.create_task(run_device(machine, uri, rate=rate, qos=qos, counts=counts, stop=stop))
            await asyncio.sleep(0.01)  # a fleet comes up over a moment, not in one burst
