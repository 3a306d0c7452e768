"""`manage.py simulate`: devices that publish, and a consumer group that falls behind and catches up."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any
from urllib.parse import quote

from django.core.management.base import BaseCommand, CommandError, CommandParser

from console import kafka
from console.simulation.fleet import Counts, run_fleet
from console.simulation.reader import read
from console.simulation.telemetry import Machine
from console.supervisor.addresses import BadAddress, mqtt, parse

TOPIC = "mqtt.messages"
REPORT_SECONDS = 5.0


class GroupSource:
    """The reader's records: one member of a consumer group on the default uplink topic."""

    def __init__(self, group: str) -> None:
        self._consumer = kafka.consumer(group)
        self._consumer.subscribe([TOPIC])

    def poll_count(self, maximum: int, timeout: float) -> int:
        records = self._consumer.poll(maximum, timeout)
        if records:
            self._consumer.commit({record.origin: record.offset + 1 for record in records})
        return len(records)

    def close(self) -> None:
        self._consumer.close()


class Command(BaseCommand):
    help = "Publish plausible telemetry from many devices, and read it with a group that is slow now and then."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--devices", type=int, default=50, help="how many connections (50)")
        parser.add_argument("--rate", type=float, default=5.0, help="messages per second and device (5)")
        parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
        parser.add_argument("--seconds", type=float, default=0, help="stop after so long; 0: at Ctrl-C")
        parser.add_argument("--group", default="plant-dashboard", help="the consumer group; empty for none")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument(
            "--mqtt", default="", help="host:port of the gateway; its first mqtt:// listener without it"
        )
        parser.add_argument(
            "--username", default="", help="for every device; the password is read from SLUICE_PASSWORD"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["devices"] < 1 or options["rate"] <= 0:
            raise CommandError("--devices and --rate take numbers above 0")
        machines = [Machine(number=number, seed=options["seed"]) for number in range(options["devices"])]
        counts, read_total = Counts(), [0]
        reading = threading.Event()
        threads = []
        if options["group"]:
            source = GroupSource(options["group"])

            def count(records: int) -> None:
                read_total[0] += records

            traffic = options["devices"] * options["rate"]
            keywords = {"traffic": traffic, "stop": reading, "counted": count}
            threads.append(threading.Thread(target=read, args=(source,), kwargs=keywords, name="reader"))
        for thread in threads:
            thread.start()
        try:
            asyncio.run(self._run(machines, self._uri(options), options, counts, read_total))
        finally:
            reading.set()
            for thread in threads:
                thread.join(15)
        self.stdout.write(
            f"{counts.acknowledged} messages acknowledged, {read_total[0]} read, {counts.failed} failures"
        )

    async def _run(
        self, machines: list[Machine], uri: str, options: dict[str, Any], counts: Counts, read_total: list[int]
    ) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if options["seconds"]:
            loop.call_later(options["seconds"], stop.set)
        report = asyncio.create_task(self._report(counts, read_total))
        try:
            await run_fleet(machines, uri, rate=options["rate"], qos=options["qos"], counts=counts, stop=stop)
        finally:
            report.cancel()

    async def _report(self, counts: Counts, read_total: list[int]) -> None:
        before, then, failures = 0, time.monotonic(), 0
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            now = time.monotonic()
            rate = (counts.acknowledged - before) / (now - then)
            before, then = counts.acknowledged, now
            line = (
                f"{counts.online} online, {rate:.0f} acknowledged/s, {counts.acknowledged - read_total[0]} not yet read"
            )
            if counts.failed > failures:
                line += f", {counts.failed - failures} failures (last: {counts.last_failure})"
                failures = counts.failed
            self.stdout.write(line)
            self.stdout.flush()

    @staticmethod
    def _uri(options: dict[str, Any]) -> str:
        """The gateway's address as amqtt takes it, with the credentials inside."""
        try:
            plain = parse("--mqtt", options["mqtt"])[0] if options["mqtt"] else mqtt(os.environ)
        except BadAddress as error:
            raise CommandError(str(error)) from error
        if plain is None:
            raise CommandError("SLUICE_MQTT_LISTENERS has no mqtt:// listener: give one with --mqtt host:port")
        credentials = ""
        if options["username"]:
            password = os.environ.get("SLUICE_PASSWORD", "")
            credentials = f"{quote(options['username'], safe='')}:{quote(password, safe='')}@"
        return f"mqtt://{credentials}{plain}"
