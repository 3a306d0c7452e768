"""Which clients are online: `__sluice_presence`, read from its beginning, followed, kept in the table of clients."""

import logging
import threading
from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, connection

from console import kafka
from console.devices import presence as table
from gateway import contract

log = logging.getLogger("sluice.monitor")

TOPIC = "__sluice_presence"
GATEWAY_SILENT_SECONDS = 60.0


class Presence:
    """`online` is None until the topic has been read to where it ended at the start."""

    def __init__(
        self, gateway: Callable[[str, contract.GatewayStatus | None], None] = lambda name, status: None
    ) -> None:
        """`gateway` hears what each gateway says of itself; None: nothing is known of it any more."""
        self._gateway = gateway
        self._online: set[str] = set()
        self._seen: set[str] = set()  # until the topic was read to its end
        self._complete = False
        self._gateways: dict[str, contract.GatewayStatus] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    @property
    def online(self) -> int | None:
        return len(self._online) if self._complete else None

    def anonymous(self, now: float) -> bool:
        """Whether a gateway that is heard of at `now` (epoch seconds) lets devices in that don't sign in."""
        return any(
            one.anonymous and not one.stopped and now - one.at < GATEWAY_SILENT_SECONDS
            for one in list(self._gateways.values())
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (kafka.ClientError, kafka.SettingsError) as error:
                log.info("presence can't be read: %s", error)
            except DatabaseError as error:
                log.warning("presence can't be kept: %s", error)
            self._complete = False
            connection.close()
            self._stop.wait(2)

    def _follow(self) -> None:
        topic = kafka.admin().topics([TOPIC]).get(TOPIC)
        if topic is None:
            return
        places = [kafka.TopicPartition(TOPIC, partition.index) for partition in topic.partitions]
        ends = {
            p: one.offset for p, one in kafka.admin().offsets(places, kafka.types.At.LATEST).items() if not one.error
        }
        starts = {
            p: one.offset for p, one in kafka.admin().offsets(places, kafka.types.At.EARLIEST).items() if not one.error
        }
        behind = {place for place in places if ends.get(place, 0) > starts.get(place, 0)}
        self._online.clear()
        self._seen.clear()
        reader = kafka.consumer(queue_kbytes=4096)
        try:
            reader.assign(dict.fromkeys(places, kafka.BEGINNING))
            if not behind:
                self._read_to_the_end()
            quiet = 0
            while not self._stop.is_set():
                records = reader.poll(1000, 0.5)
                newest: dict[str, contract.Presence | None] = {}
                for record in records:
                    self._take(record, newest)
                    if record.offset >= ends.get(record.origin, 0) - 1:
                        behind.discard(record.origin)
                if newest:
                    table.keep(newest)
                quiet = 0 if records else quiet + 1
                if not self._complete and (not behind or quiet > 4):  # compaction may have taken the last offsets
                    self._read_to_the_end()
                if quiet and quiet % 60 == 0 and self._made_anew(topic.id):
                    return
        finally:
            reader.close()

    def _read_to_the_end(self) -> None:
        table.forget_others(self._seen)
        self._seen.clear()
        self._complete = True

    def _take(self, record: Any, newest: dict[str, contract.Presence | None]) -> None:
        client_id = (record.key or b"").decode("utf-8", "replace")
        if client_id.startswith(contract.SHARE_KEY):
            return
        if client_id.startswith(contract.GATEWAY_KEY):
            self._take_gateway(client_id, record.value)
            return
        try:
            found = contract.decode(contract.Presence, record.value) if record.value is not None else None
        except contract.MalformedRecord as error:
            log.warning("the presence of %r can't be read: %s", client_id, error)
            return
        newest[client_id] = found
        if found is not None and not self._complete:
            self._seen.add(client_id)
        if found is not None and found.online:
            self._online.add(client_id)
        else:
            self._online.discard(client_id)

    def _take_gateway(self, key: str, value: bytes | None) -> None:
        try:
            status = contract.decode(contract.GatewayStatus, value) if value is not None else None
        except contract.MalformedRecord as error:
            log.warning("the state of %r can't be read: %s", key, error)
            return
        if status is None:
            self._gateways.pop(key, None)
        else:
            self._gateways[key] = status
        self._gateway(key[len(contract.GATEWAY_KEY) :], status)

    def _made_anew(self, known_id: str) -> bool:
        found = kafka.admin().topics([TOPIC]).get(TOPIC)
        return found is None or found.id != known_id
