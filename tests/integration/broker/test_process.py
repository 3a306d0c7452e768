"""`python -m broker` as a process: it says what is wrong, stops in order, and keeps its word when it is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.wire.codec import struct
from tests.integration.broker.wire_client import Connection, fetch_fields, produce, values_of

ROOT = Path(__file__).parents[3]


class Process:
    """A running broker and its log lines so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.port = 0

    async def wait_ready(self) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(90):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if found := re.search(r"ready: PLAINTEXT://127\.0\.0\.1:(\d+)", line):
                    self.port = int(found[1])
                    return
        raise AssertionError("".join(self.lines))

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(90):
            _, rest = await self.process.communicate()
        self.lines += rest.decode().splitlines(keepends=True)
        assert self.process.returncode is not None
        return self.process.returncode


async def spawn(folder: Path, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    environment = {
        "PATH": os.environ["PATH"],
        "SLUICE_DATA": str(folder),
        "SLUICE_BROKER_LISTENERS": "PLAINTEXT://127.0.0.1:0",
        **variables,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker",
        *arguments,
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def running(folder: Path, **variables: str) -> AsyncIterator[Process]:
    one = Process(await spawn(folder, **variables))
    try:
        await one.wait_ready()
        yield one
    finally:
        if one.process.returncode is None:
            await one.end(signal.SIGKILL)


async def outcome(folder: Path, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
    process = await spawn(folder, *arguments, **variables)
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_help_lists_the_variables_and_nothing_else_is_taken(tmp_path: Path) -> None:
    status, out, _ = await outcome(tmp_path, "--help")
    assert status == 0
    assert "SLUICE_BROKER_LISTENERS" in out
    status, _, err = await outcome(tmp_path, "--port", "5")
    assert (status, "no arguments" in err) == (2, True)


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"SLUICE_BROKER_LISTENERS": "PLAINTEXT://0.0.0.0:0"}, "SLUICE_INSECURE"),
        ({"SLUICE_FLUSH": "sometimes"}, "SLUICE_FLUSH"),
        ({"SLUICE_BROKER_LISTENERS": "PLAINTEXT://127.0.0.1:1"}, "can't be listened on"),
    ],
    ids=["unsafe", "nonsense", "taken"],
)
async def test_a_start_that_can_not_be_is_one_clear_line(tmp_path: Path, variables: dict[str, str], word: str) -> None:
    if word.startswith("can't"):
        listener = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        variables = {"SLUICE_BROKER_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}"}
    status, _, err = await outcome(tmp_path, **variables)
    assert status == 1
    assert word in err
    assert "Traceback" not in err


async def test_a_data_folder_has_one_broker(tmp_path: Path) -> None:
    async with running(tmp_path):
        status, _, err = await outcome(tmp_path)
        assert status == 1
        assert "Traceback" not in err


async def create(connection: Connection, name: str, partitions: int) -> None:
    wanted = struct("CreateTopicsRequest.CreatableTopic")(name=name, num_partitions=partitions, replication_factor=1)
    answer = await connection.call("CreateTopics", 7, topics=[wanted])
    assert answer.topics[0].error_code == 0


async def read(connection: Connection, name: str, partitions: int) -> list[list[bytes]]:
    answer = await connection.call("Fetch", 12, **fetch_fields(name, *((index, 0) for index in range(partitions))))
    return [values_of(one.records) for one in answer.responses[0].partitions]


async def test_told_to_stop_it_stops_in_order_and_the_next_start_is_clean(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        connection = await first.connect()
        await create(connection, "t", 1)
        await produce(connection, "t", b"x")
        assert await first.end(signal.SIGTERM) == 0
        assert "stopped" in first.lines[-1]
    async with running(tmp_path) as second:
        assert any("clean" in line for line in second.lines)
        assert await read(await second.connect(), "t", 1) == [[b"x"]]


async def test_killed_it_keeps_everything_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[tuple[int, int, bytes]] = []

    async def write(connection: Connection, worker: int) -> None:
        number = 0
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                value = b"%d-%d" % (worker, number)
                answer = await produce(connection, "t", value, partition=worker % 8)
                assert answer.error_code == 0
                acknowledged.append((worker % 8, answer.base_offset, value))
                number += 1

    async with running(tmp_path) as first:
        await create(await first.connect(), "t", 8)
        writers = [asyncio.create_task(write(await first.connect(), worker)) for worker in range(16)]
        async with asyncio.timeout(90):
            while len(acknowledged) < 500:  # noqa: ASYNC110 — the writers have no event for it
                await asyncio.sleep(0.01)
        await first.end(signal.SIGKILL)
        await asyncio.gather(*writers)
    async with running(tmp_path) as second:
        found = await read(await second.connect(), "t", 8)
        for partition, offset, value in acknowledged:
            assert found[partition][offset] == value


async def test_the_internal_credential_stays_the_same_and_is_private(tmp_path: Path) -> None:
    async with running(tmp_path):
        before = json.loads((tmp_path / "internal.json").read_text())
    async with running(tmp_path):
        assert json.loads((tmp_path / "internal.json").read_text()) == before
    assert (tmp_path / "internal.json").stat().st_mode & 0o777 == 0o600
