"""The admin's connections against servers that stay silent, hang up or talk nonsense."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from broker.client import AsyncAdmin, Settings, errors
from broker.client.administration.link import Link
from broker.wire import codec, framing
from broker.wire.codec import Struct
from tests.integration.client.broker_stand_in import StandIn

CREATE_TOPICS, LIST_GROUPS, DESCRIBE_ACLS = 19, 16, 29


def settings(port: int, **more: Any) -> Settings:
    return Settings(bootstrap=f"127.0.0.1:{port}", **more)


async def test_silence_ends_at_the_deadline() -> None:
    async with StandIn(silent=frozenset({LIST_GROUPS})) as server:
        admin = AsyncAdmin(settings(server.port), timeout=1.5)
        with pytest.raises(errors.TimedOut):
            await admin.groups()
        await admin.close()


async def test_a_server_that_never_says_hello_ends_at_the_deadline() -> None:
    async with StandIn(silent=frozenset({18})) as server:
        admin = AsyncAdmin(settings(server.port), timeout=1.5)
        with pytest.raises((errors.TimedOut, errors.Unreachable)):
            await admin.cluster()
        await admin.close()


async def test_a_read_is_asked_again_on_another_connection_after_a_hang_up() -> None:
    seen: Counter[int] = Counter()

    def answer(header: framing.RequestHeader, _: Struct) -> Struct | None:
        seen[header.api_key] += 1
        return None if seen[header.api_key] == 1 else codec.struct("ListGroupsResponse")()

    async with StandIn(answer) as server:
        admin = AsyncAdmin(settings(server.port), timeout=60)
        assert await admin.groups() == ()
        assert seen[LIST_GROUPS] == 2
        await admin.close()


async def test_a_change_is_not_asked_twice_when_its_outcome_is_unknown() -> None:
    async with StandIn(lambda header, request: None) as server:
        admin = AsyncAdmin(settings(server.port), timeout=60)
        with pytest.raises(errors.TimedOut, match="may have been done"):
            await admin.create_topic("x", 1)
        assert server.requests.count(CREATE_TOPICS) == 1
        await admin.close()


async def test_a_coordinator_that_moves_is_found_again() -> None:
    refusals = [16, 14, 0]

    def answer(header: framing.RequestHeader, _: Struct) -> Struct | None:
        return codec.struct("ListGroupsResponse")(error_code=refusals.pop(0))

    async with StandIn(answer) as server:
        admin = AsyncAdmin(settings(server.port), timeout=60)
        assert await admin.groups() == ()
        assert refusals == []
        await admin.close()


async def test_nonsense_is_named() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        admin = AsyncAdmin(settings(server.sockets[0].getsockname()[1]), timeout=10)
        with pytest.raises((errors.ProtocolError, errors.Unreachable)):
            await admin.cluster()
        await admin.close()


async def test_a_missing_mechanism_is_named_with_those_there_are() -> None:
    def answer(header: framing.RequestHeader, _: Struct) -> Struct | None:
        return codec.struct("SaslHandshakeResponse")(error_code=33, mechanisms=["GSSAPI"])

    async with StandIn(answer) as server:
        link = Link(
            settings(server.port, security="SASL_PLAINTEXT", mechanism="SCRAM-SHA-512", username="u", password="p"),
            timeout=30,
        )
        with pytest.raises(errors.AuthenticationFailed, match="GSSAPI"):
            await link.some()
        await link.close()


async def test_what_kafka_refuses_is_raised_by_name() -> None:
    def answer(header: framing.RequestHeader, _: Struct) -> Struct | None:
        return codec.struct("DescribeAclsResponse")(error_code=31, error_message="no")

    async with StandIn(answer) as server:
        admin = AsyncAdmin(settings(server.port), timeout=30)
        with pytest.raises(errors.NotAuthorized, match="no") as refused:
            await admin.acls()
        assert (refused.value.code, refused.value.name) == (31, "CLUSTER_AUTHORIZATION_FAILED")
        await admin.close()


async def test_many_calls_share_one_connection() -> None:
    def answer(header: framing.RequestHeader, _: Struct) -> Struct | None:
        return codec.struct("ListGroupsResponse")()

    async with StandIn(answer) as server:
        admin = AsyncAdmin(settings(server.port), timeout=60)
        await asyncio.gather(*(admin.groups() for _ in range(20)))
        assert server.requests.count(18) == 1
        await admin.close()
