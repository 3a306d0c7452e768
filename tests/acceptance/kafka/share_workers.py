"""Workers of a share group that are killed between receipt and acknowledgement, and what they noted.

    python -m tests.acceptance.kafka.share_workers BOOTSTRAP TOPIC GROUP JOURNAL WORKERS KILLS SEED

A process of its own, without threads: it forks its workers, which is quick. A worker notes what it received, works a
moment, acknowledges, and notes what the broker took. Jobs whose value begins with "poison" kill whoever receives them.
The journal is one JSON list per line: ["got", pid, partition, offset, delivery count, time], ["done", pid, partition,
offset], ["unsure", …] (the broker did not answer, or refused), ["killed", pid, time]. Whoever is killed while it writes
leaves a torn line, which nobody reads: every line begins on a new one, and only whole lists end with a bracket.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from broker.client import Settings, ShareConsumer, Verdict
from broker.client.errors import ClientError

BATCH = 20
CAREFUL = 4
"""Nobody is killed by the driver with a record in hand that was delivered more often: it might be its last time."""


def write(journal: int, *what: object) -> None:
    os.write(journal, f"\n{json.dumps(what)}\n".encode())


def worker(bootstrap: str, topic: str, group: str, journal: int) -> None:
    """Work until somebody kills this process, or the driver is gone."""

    def note(*what: object) -> None:
        write(journal, *what)

    pid, driver = os.getpid(), os.getppid()
    consumer = ShareConsumer(Settings(bootstrap=bootstrap), group, max_records=BATCH)
    consumer.subscribe([topic])
    while os.getppid() == driver:
        try:
            found = consumer.poll(0.5)
        except ClientError:
            continue  # the broker was killed: the consumer finds it again
        for shared in found:
            record = shared.record
            note("got", pid, record.partition, record.offset, shared.attempt, time.time())
            if (record.value or b"").startswith(b"poison"):
                note("killed", pid, time.time())
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
            consumer.acknowledge(shared, Verdict.ACCEPT)
        if found:
            try:
                outcome = consumer.commit()
            except ClientError:
                outcome = {}
            for shared in found:
                place = shared.record.origin
                taken = place in outcome and outcome[place] is None
                note("done" if taken else "unsure", pid, shared.record.partition, shared.record.offset)


def fork(*arguments: str, journal: int) -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            worker(*arguments, journal)
        finally:
            os._exit(1)
    return pid


def main() -> int:
    bootstrap, topic, group, path, count, kills, seed = sys.argv[1:8]
    chance = random.Random(int(seed))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    running = {fork(bootstrap, topic, group, journal=journal) for _ in range(int(count))}
    read, hands, killed = 0, defaultdict(dict), 0
    try:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(chance.uniform(0.01, 0.1))
            for pid in list(running):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    running.discard(pid)
                    hands.pop(pid, None)
                    running.add(fork(bootstrap, topic, group, journal=journal))
            with open(path, "rb") as lines:
                lines.seek(read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    read += len(line)
                    if not line.endswith(b"]\n"):
                        continue
                    entry = json.loads(line)
                    if entry[0] == "got":
                        hands[entry[1]][entry[2], entry[3]] = entry[4]
                    elif entry[0] in ("done", "unsure"):
                        hands[entry[1]].pop((entry[2], entry[3]), None)
            victims = [pid for pid in running if hands.get(pid) and max(hands[pid].values()) <= CAREFUL]
            if victims and killed < int(kills):
                victim = chance.choice(victims)
                os.kill(victim, signal.SIGKILL)
                write(journal, "killed", victim, time.time())
                killed += 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in running:
            os.kill(pid, signal.SIGKILL)
    return 0


@dataclass
class Told:
    """What a journal says."""

    got: dict[tuple[int, int], list[tuple[int, int, float]]] = field(default_factory=lambda: defaultdict(list))
    """By (partition, offset): worker, delivery count, time of each delivery."""
    done: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    unsure: set[tuple[int, int, int]] = field(default_factory=set)
    """(worker, partition, offset)."""
    killed: dict[int, float] = field(default_factory=dict)

    @property
    def kills_with_records_in_hand(self) -> int:
        """Workers killed between receipt and acknowledgement."""
        unfinished = {pid for place, gots in self.got.items() for pid, _, _ in gots if pid not in self.done[place]}
        return sum(pid in unfinished for pid in self.killed)

    restarts: list[tuple[float, float]] = field(default_factory=list)
    """When the broker was away."""

    def longest_wait(self) -> float:
        """Seconds from a worker's death to the next delivery of what it had received and not acknowledged, where the
        broker was there all the time."""
        longest = 0.0
        for place, gots in self.got.items():
            for (pid, _, _), (_, _, at) in itertools.pairwise(gots):
                away = any(start < at and self.killed.get(pid, 0) < end for start, end in self.restarts)
                if pid in self.killed and pid not in self.done[place] and not away:
                    longest = max(longest, at - self.killed[pid])
        return longest


def read(path: Path) -> Told:
    told = Told()
    for line in path.read_text().splitlines():
        if not line.endswith("]"):
            continue
        kind, pid, *rest = json.loads(line)
        if kind == "got":
            partition, offset, attempt, at = rest
            told.got[partition, offset].append((pid, attempt, at))
        elif kind == "done":
            told.done[rest[0], rest[1]].append(pid)
        elif kind == "unsure":
            told.unsure.add((pid, rest[0], rest[1]))
        else:
            told.killed[pid] = rest[0]
    return told


if __name__ == "__main__":
    sys.exit(main())
