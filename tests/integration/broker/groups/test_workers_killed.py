"""Workers of a share group that are killed over and over: every job is done once in the end, none is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from tests.integration.broker.groups.share_member import ShareMember
from tests.integration.broker.wire_client import Running, produce

JOBS, CYCLES, WORKERS = 3_000, 200, 4
ACCEPT = 1


async def test_two_hundred_kills_lose_nothing_and_finish_nothing_twice(running: Running) -> None:
    topic = await running.broker.topics.create("jobs", 1)
    config = {"share.auto.offset.reset": "earliest", "share.delivery.count.limit": "10"}
    await running.broker.metadata.change([(("config", "group", "g"), {"configs": config})])
    connection = await running.connect()
    chance = random.Random(7)
    done: Counter[bytes] = Counter()
    kills = takes = 0
    for first in range(0, JOBS, 100):
        await produce(connection, "jobs", *(b"%d" % (first + i) for i in range(100)))

    async def worker(name: str) -> None:
        nonlocal kills, takes
        life = 0
        idle = 0
        while idle < 20 or len(done) < JOBS:
            life += 1
            member = ShareMember(await running.connect(), "g", f"{name}-{life}", topic.topic_id)
            while idle < 20 or len(done) < JOBS:
                # What is held when the worker dies comes back; dying rarely enough that no record runs out of attempts.
                taken = await member.fetch(wait_ms=50, most=chance.randint(1, 4), share_acquire_mode=1)
                idle = 0 if taken else idle + 1
                takes += bool(taken)
                if kills < CYCLES and taken and takes % 4 == 0:
                    kills += 1
                    break
                if taken:
                    assert await member.acknowledge(*((offset, offset, ACCEPT) for offset, _, _ in taken)) == 0
                    done.update(value for _, value, _ in taken)
            await member.connection.close()

    async with asyncio.timeout(300):
        await asyncio.gather(*(worker(f"w{i}") for i in range(WORKERS)))
    assert kills == CYCLES
    assert done.keys() == {b"%d" % i for i in range(JOBS)}, "nothing is lost"
    assert set(done.values()) == {1}, "nothing is finished twice"
