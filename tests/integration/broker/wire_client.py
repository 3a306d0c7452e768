"""A client that speaks the wire protocol one request at a time, and a broker started in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from broker.api.registry import Clock
from broker.cluster import scram
from broker.config import Config, Limits, Listener
from broker.internal import InternalCredential
from broker.server.assembly import Assembly
from broker.wire import batch, framing, schema
from broker.wire.codec import struct
from tests.unit.broker.cluster.scram_client import ScramClient

INTERNAL = InternalCredential(username="__sluice", password="internal-password", bootstrap="127.0.0.1:0")
PLAINTEXT = Listener(name="PLAINTEXT", protocol="PLAINTEXT", host="127.0.0.1", port=0)
SASL = Listener(name="SASL_PLAINTEXT", protocol="SASL_PLAINTEXT", host="127.0.0.1", port=0)
INTERNAL_LISTENER = Listener(name="INTERNAL", protocol="SASL_PLAINTEXT", host="127.0.0.1", port=0, internal=True)

NAMES = {api.name: key for key, api in schema.apis().items()}


class Connection:
    """One connection; `call` sends a request by name and gives its response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._correlation = 0

    def send(self, name: str, version: int, *, client_id: str | None = "test", **fields: Any) -> None:
        self._correlation += 1
        header = framing.RequestHeader(NAMES[name], version, self._correlation, client_id)
        self.writer.writelines(framing.request(header, struct(f"{name}Request")(**fields)))

    async def receive(self, name: str, version: int) -> Any:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        frame = await self.reader.readexactly(size)
        self.received, response = framing.parse_response(NAMES[name], version, frame)
        return response

    async def call(self, name: str, version: int, **fields: Any) -> Any:
        self.send(name, version, **fields)
        async with asyncio.timeout(60):
            return await self.receive(name, version)

    async def closed(self, seconds: float = 60) -> bool:
        """Whether the broker closes the connection; bytes it still sends are passed over."""
        try:
            async with asyncio.timeout(seconds):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    async def sign_in(self, user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> Any:
        """Sign in with SCRAM; the last response."""
        await self.call("SaslHandshake", 1, mechanism=mechanism)
        client = ScramClient(user, password, mechanism)
        first = await self.call("SaslAuthenticate", 2, auth_bytes=client.first())
        if first.error_code:
            return first
        return await self.call("SaslAuthenticate", 2, auth_bytes=client.final(bytes(first.auth_bytes)))

    async def bear(self, token: str) -> Any:
        """Sign in with a token; the last response (after RFC 7628's challenge the client's answer to it)."""
        await self.call("SaslHandshake", 1, mechanism="OAUTHBEARER")
        message = f"n,,\x01auth=Bearer {token}\x01\x01".encode()
        answer = await self.call("SaslAuthenticate", 2, auth_bytes=message)
        if not answer.error_code and answer.auth_bytes:
            assert json.loads(bytes(answer.auth_bytes)) == {"status": "invalid_token"}
            answer = await self.call("SaslAuthenticate", 2, auth_bytes=b"\x01")
        return answer

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


class Running:
    """A broker and the ways to reach it."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.broker = assembly.broker
        self._connections: list[Connection] = []

    def port(self, name: str = "PLAINTEXT") -> int:
        return next(one.port for one in self.assembly.server.listeners if one.name == name)

    async def connect(self, name: str = "PLAINTEXT", tls: ssl.SSLContext | None = None) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port(name), ssl=tls)
        connection = Connection(reader, writer)
        self._connections.append(connection)
        return connection

    async def root(self) -> Connection:
        """A connection signed in as the internal super-user."""
        connection = await self.connect("INTERNAL")
        answer = await connection.sign_in(INTERNAL.username, INTERNAL.password)
        assert answer.error_code == 0, answer
        return connection

    async def add_user(self, user: str, password: str) -> None:
        kept = scram.credential(password, "SCRAM-SHA-256")
        await self.broker.metadata.change(
            [
                (
                    ("scram", user, "SCRAM-SHA-256"),
                    {
                        "salt": kept.salt.hex(),
                        "stored_key": kept.stored_key.hex(),
                        "server_key": kept.server_key.hex(),
                        "iterations": kept.iterations,
                    },
                )
            ]
        )

    async def close_connections(self) -> None:
        for connection in self._connections:
            await connection.close()


def settings(folder: Path, **changes: Any) -> Config:
    usual = Config(
        data=folder,
        listeners=(PLAINTEXT, SASL, INTERNAL_LISTENER),
        super_users=frozenset((INTERNAL.principal,)),
        limits=Limits(authentication_seconds=60.0),
    )
    return replace(usual, **changes)


@contextlib.asynccontextmanager
async def started(config: Config, clock: Clock | None = None) -> AsyncIterator[Running]:
    assembly = Assembly(config, internal=INTERNAL, clock=clock)
    await assembly.start()
    running = Running(assembly)
    try:
        yield running
    finally:
        await running.close_connections()
        await assembly.stop()


def records(*values: bytes, timestamp: int = 1_000, key: bytes | None = None, **more: Any) -> bytes:
    """A batch of values."""
    return batch.build(
        [batch.Record(index, timestamp + index, key, value) for index, value in enumerate(values)], **more
    )


def values_of(data: Any) -> list[bytes]:
    """The values in the records of a fetch answer."""
    return [bytes(one.value or b"") for part in batch.split(bytes(data or b"")) for one in batch.records(part)]


async def produce(
    connection: Connection, topic: str, *values: bytes, partition: int = 0, version: int = 9, **more: Any
) -> Any:
    """Produce one batch to one partition; the partition's answer."""
    data = struct("ProduceRequest.PartitionProduceData")(
        index=partition, records=more.pop("batch", None) or records(*values)
    )
    one = struct("ProduceRequest.TopicProduceData")(
        name=topic, topic_id=more.pop("topic_id", bytes(16)), partition_data=[data]
    )
    answer = await connection.call("Produce", version, acks=-1, timeout_ms=5000, topic_data=[one], **more)
    return answer.responses[0].partition_responses[0]


def fetch_fields(
    topic: str, *wanted: tuple[int, int], topic_id: bytes = bytes(16), size: int = 1 << 20, **more: Any
) -> dict[str, Any]:
    """The fields of a Fetch of (partition, offset)s of one topic."""
    partitions = [
        struct("FetchRequest.FetchPartition")(partition=index, fetch_offset=offset, partition_max_bytes=size)
        for index, offset in wanted
    ]
    one = struct("FetchRequest.FetchTopic")(topic=topic, topic_id=topic_id, partitions=partitions)
    return {"max_wait_ms": 0, "min_bytes": 1, "max_bytes": 1 << 25, "topics": [one], **more}
