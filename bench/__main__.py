"""`python -m bench [SECTION …] [--quick]`: print the figures as Markdown; `--help` lists the sections.

Peers that are found on the machine are measured with the same client in the same run; one that is missing is said so.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

from bench import attacks, delay, gateway, idle, kafka, machine, offline, pages, queues
from bench.clusters import Cluster, apache, embedded
from bench.tables import count, table

PARTITIONS = (1, 64, 256)
PEERS: Sequence[Callable[[], contextlib.AbstractContextManager[Cluster]]] = (
    lambda: apache("Kafka, defaults"),
    lambda: apache("Kafka, flush.messages=1", "log.flush.interval.messages=1\n"),
)


def clusters() -> Iterator[Cluster]:
    """Each cluster in turn, alone on the machine while it is measured."""
    for start in (embedded, *PEERS):
        try:
            machine.touch_memory()
            with start() as cluster:
                yield cluster
        except Exception as error:
            print(f"not measured: {error}\n")


def kafka_section(scale: float) -> None:
    flows: list[list[object]] = []
    processes: list[list[object]] = []
    for cluster in clusters():
        kafka.warm(cluster)
        latency = kafka.latency(cluster, kafka.create_topic(cluster, 1), rate=1_000, seconds=max(5, 20 * scale))
        for size, messages in ((100, 2_000_000), (1000, 400_000)):
            for partitions in PARTITIONS:
                wanted = int(messages * scale)
                machine.touch_memory(1 << 30)  # the row before it, or its deletion, left the rest cold
                topic = kafka.create_topic(cluster, partitions)
                made = kafka.produce(cluster, topic, size=size, partitions=partitions, count=wanted)
                read = kafka.consume(cluster, topic, partitions=partitions, count=wanted)
                kafka.delete_topic(cluster, topic)
                flows.append(
                    [
                        *(cluster.name, f"{size} B", partitions),
                        *(count(made.rate), f"{made.cpu:.1f}", count(read.rate), f"{read.cpu:.1f}"),
                    ]
                )
        memory = machine.usage(cluster.pid).rss / 2**20
        processes.append(
            [cluster.name, f"{latency.p50:.2f}", f"{latency.p99:.2f}", f"{memory:.0f}", f"{cluster.started_in:.2f}"]
        )
    head = ["cluster", "size", "partitions", "produce /s", "µs CPU each", "consume /s", "µs CPU each"]
    print(table("Kafka protocol: durable produce and consume, confluent-kafka", head, flows))
    head = ["cluster", "p50 ms", "p99 ms", "memory MiB", "start s"]
    print(table("End to end at 1,000 msg/s, linger 0; memory after the run; start", head, processes))


SECTIONS: dict[str, Callable[[float], None]] = {
    "kafka": kafka_section,
    "idle": idle.section,
    "queues": queues.section,
    "gateway": gateway.section,
    "attacks": attacks.section,
    "offline": offline.section,
    "delay": delay.section,
    "pages": pages.section,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="which to run; all without it")
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whoever ends this ends the servers it started too
    print(f"{machine.describe()}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC\n")
    for name in arguments.sections or SECTIONS:
        SECTIONS[name](0.1 if arguments.quick else 1.0)


if __name__ == "__main__":
    main()
