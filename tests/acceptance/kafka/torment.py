"""Broker and gateway killed, stopped for a while and started again under load; then: is all that was promised there?

Kafka clients (`Scene`) and MQTT devices of QoS 1 and 2 go on through all of it, each keeping what it was told.
"""

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from broker.client import TopicPartition
from tests.acceptance.gateway.device import Publisher
from tests.acceptance.gateway.stack import Process, Stack
from tests.acceptance.kafka.history import History, Place
from tests.acceptance.kafka.scene import PARTITIONS, Scene

DEVICES = 8
MQTT = "mqtt.messages"
TOPICS = {"plain": PARTITIONS, "atomic": 2, MQTT: 4}


def device_problems(publishers: Sequence[Publisher], records: Iterable[tuple[Place, str]]) -> list[str]:
    """What the log holds of the devices' messages and should not, or should and does not."""
    out: list[str] = []
    times: Counter[str] = Counter()
    newest: dict[tuple[str, int], int] = {}
    exact = {each.client_id for each in publishers if each.qos == 2}
    for (_, partition, offset), value in sorted(records):
        times[value] += 1
        device, _, number = value.partition("/")
        if device not in exact:
            continue  # QoS 1 may come again, and out of order then
        if int(number) <= newest.get((device, partition), -1):
            out.append(f"reordered: {value} at {partition}/{offset}")
        newest[device, partition] = int(number)
    for each in publishers:
        if each.disorder:
            out.append(f"{each.client_id}: {each.disorder} acknowledgements out of order")
        out.extend(f"lost: {value!r}" for value in each.acknowledged if value.decode() not in times)
    out.extend(f"doubled: {value}" for value, count in times.items() if count > 1 and value.split("/")[0] in exact)
    return out


class Devices:
    """Devices on a loop of their own; those with an even number send QoS 1, the others QoS 2."""

    def __init__(self, port: int) -> None:
        self.publishers = [
            Publisher(port, f"device-{number}", qos=1 + number % 2, window=4, clean=number % 2 == 0, pause=0.02)
            for number in range(DEVICES)
        ]
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self.error = error

    async def _all(self) -> None:
        await asyncio.gather(*(each.run() for each in self.publishers))

    def stop(self) -> None:
        """Let them finish what they began."""
        for each in self.publishers:
            each.stopping = True
        self._thread.join(90)
        assert not self._thread.is_alive(), "a device could not finish"
        assert self.error is None, self.error


class Torment:
    """One run. `done` counts what was done to whom."""

    def __init__(self, stack: Stack, seed: int, *, pause: float) -> None:
        self.stack = stack
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._places = [TopicPartition(topic, index) for topic, count in TOPICS.items() for index in range(count)]
        stack.broker.start()
        with stack.admin() as admin:
            for topic, count in TOPICS.items():
                admin.create_topic(topic, count)
        stack.gateway.start()
        self.scene = Scene(stack.cluster, pause=pause)
        self.devices = Devices(stack.port)
        for thread in self.scene.threads:
            thread.start()

    @property
    def kills(self) -> int:
        return sum(count for what, count in self.done.items() if what.startswith("kill"))

    def disturb(self) -> None:
        """One thing goes wrong, after a while."""
        chance = self.chance
        # mostly early, in the middle of recovery's aftermath; now and then after a checkpoint
        time.sleep(chance.uniform(0.05, 0.5) if chance.random() < 0.85 else chance.uniform(0.8, 2.0))
        broker, gateway = self.stack.broker, self.stack.gateway
        broker.check()
        gateway.check()
        what = chance.choices(
            ("kill broker", "kill gateway", "kill both", "pause broker", "pause gateway", "restart broker"),
            (50, 28, 8, 6, 5, 3),
        )[0]
        self.done[what] += 1
        if what == "kill both":
            gateway.kill()
        if what in ("kill broker", "kill both"):
            broker.kill()
            broker.start()
        if what in ("kill gateway", "kill both"):
            gateway.kill()
            gateway.start(ready=chance.random() < 0.7)  # now and then the next one comes while it starts
        if what.startswith("pause"):
            self._pause(broker if what == "pause broker" else gateway)
        if what == "restart broker":
            assert broker.stop() == 0
            broker.start()

    def _pause(self, process: Process) -> None:
        process.signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.1, 1.5))
        process.signal(signal.SIGCONT)

    def look(self) -> None:
        """What a reader saw once must be what every later reader sees."""
        with self.stack.admin() as admin:
            self.scene.read("read_uncommitted", TOPICS, admin.offsets(self._places))
        assert self.scene.history.contradictions == []
        assert not self.scene.errors, self.scene.errors

    def finish(self) -> History:
        """End the load and read everything back."""
        scene = self.scene
        time.sleep(1)
        try:
            self.devices.stop()
        finally:
            self.stack.gateway.check()
            self.stack.broker.check()
        scene.halt.set()
        for thread in scene.threads:
            thread.join(90)
        assert not scene.errors, scene.errors
        assert not any(thread.is_alive() for thread in scene.threads)
        scene._transactional().close(5)  # a transaction left open is ended by its successor
        with self.stack.admin() as admin:
            scene.read("read_uncommitted", TOPICS, admin.offsets(self._places))
            scene.read("read_committed", TOPICS, admin.offsets(self._places, committed_only=True))
            found = admin.group_offsets(["committer"])["committer"]
        scene.history.offsets_found["committer"] = found[TopicPartition("plain", 0)].offset
        return scene.history

    def problems(self) -> list[str]:
        """Everything that was promised and is not so."""
        history = self.scene.history
        of_devices = [(place, value) for place, value in history.committed_reads if place[0] == MQTT]
        ours = History(
            **{name: getattr(history, name) for name in ("acknowledged", "refused", "transactions", "contradictions")},
            observed={place: value for place, value in history.observed.items() if place[0] != MQTT},
            committed_reads=[(place, value) for place, value in history.committed_reads if place[0] != MQTT],
            offsets_acknowledged=history.offsets_acknowledged,
            offsets_attempted=history.offsets_attempted,
            offsets_found=history.offsets_found,
        )
        return [*ours.problems(), *(self._placed(one) for one in device_problems(self.devices.publishers, of_devices))]

    def _placed(self, problem: str) -> str:
        """With the places where readers of everything, aborted records too, found that message."""
        places = [place for place, value in self.scene.history.observed.items() if f"b'{value}'" in problem]
        return f"{problem}; uncommitted readers found it at {places}" if problem.startswith("lost") else problem

    def totals(self) -> str:
        """One line."""
        history = self.scene.history
        outcomes = Counter(transaction.outcome for transaction in history.transactions)
        published = sum(len(each.acknowledged) for each in self.devices.publishers)
        return (
            f"{self.kills} kills -9 ({dict(sorted(self.done.items()))}) · {len(history.acknowledged):,} records and "
            f"{published:,} MQTT messages acknowledged · {len(history.observed):,} records in the log · transactions "
            f"{dict(sorted(outcomes.items()))} · committed offset {history.offsets_found['committer']}"
        )
