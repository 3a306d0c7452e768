"""Well-formed requests with odd values, to every API in every version: each is answered, none breaks a handler."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import pytest

from broker.api.table import handlers
from broker.wire import schema
from broker.wire.codec import struct
from tests.integration.broker.wire_client import Connection, Running, records

ROUNDS = 4
NUMBERS = {
    "int8": (0, 1, -1, 2, 127, -128),
    "int16": (0, 1, -1, 5, 32767, -32768),
    "uint16": (0, 1, 65535),
    "int32": (0, 1, -1, 3, 2**31 - 1, -(2**31)),
    "int64": (0, 1, -1, -2, 10, 2**63 - 1, -(2**63)),
    "uint32": (0, 1, 2**32 - 1),
    "float64": (0.0, -1.0, 1e300, float("nan"), float("inf")),
    "bool": (True, False),
}
TEXTS = ("", "t", "g", "*", "User:alice", "User:", "__consumer_offsets", "ü\0", "x" * 300, "kafka-cluster", "1", "user")


class Odd:
    """Makes messages of odd values from the definitions."""

    def __init__(self, seed: int, topic_id: bytes) -> None:
        self._chance = random.Random(seed)
        self._topic_id = topic_id

    def message(self, name: str, version: int) -> Any:
        fields = {
            field.name: self._value(field, version)
            for field in schema.message(name).fields
            if version in field.versions and field.name != "max_wait_ms"
        }
        return struct(name)(**fields)

    def _value(self, field: Any, version: int) -> Any:
        if version in field.nullable and self._chance.random() < 0.2:
            return None
        if field.array:
            return [self._one(field, version) for _ in range(self._chance.choice((0, 1, 1, 2)))]
        return self._one(field, version)

    def _one(self, field: Any, version: int) -> Any:
        if field.kind == "struct":
            return self.message(field.struct, version)
        if field.kind in NUMBERS:
            if field.name == "timeout_ms":
                return 10
            return self._chance.choice(NUMBERS[field.kind])
        if field.kind == "string":
            return self._chance.choice(TEXTS)
        if field.kind == "uuid":
            return self._chance.choice((bytes(16), self._topic_id, b"u" * 16))
        if field.kind == "records":
            return self._chance.choice((b"", b"x", records(b"v"), records(b"v")[:-1], bytes(70)))
        return self._chance.choice((b"", b"\0", b"n,,n=x,r=y", bytes(40)))


async def answered(running: Running, connection: Connection, name: str, version: int, message: Any) -> Connection:
    """Send; a new connection when the broker closed this one."""
    fields = {slot: getattr(message, slot) for slot in type(message).__slots__}
    try:
        connection.send(name, version, **fields)
        async with asyncio.timeout(3):
            await connection.receive(name, version)
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        await connection.close()
        return await running.root()
    return connection


@pytest.mark.parametrize("key", sorted(handlers()))
async def test_odd_values_break_no_handler(running: Running, caplog: pytest.LogCaptureFixture, key: int) -> None:
    made = await running.broker.topics.create("t", 2)
    api = handlers()[key]
    name = schema.api(key).name
    caplog.set_level(logging.ERROR)
    connection = await running.root()
    for version in range(api.min, api.max + 1):
        odd = Odd(key * 100 + version, made.topic_id)
        for _ in range(ROUNDS):
            message = odd.message(f"{name}Request", version)
            connection = await answered(running, connection, name, version, message)
            broken = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
            assert not broken, (version, message, caplog.records[-1].exc_info)
    good = await running.connect()
    assert (await good.call("Metadata", 12, topics=[])).cluster_id
