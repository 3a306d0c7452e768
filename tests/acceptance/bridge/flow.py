"""Messages that go both ways over a bridge while it is interfered with, and what became of them."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from gateway import contract
from gateway.contract import BRIDGE_KEY, TRAFFIC, BridgeStatus
from tests.acceptance.bridge.conftest import Bridged, Client
from tests.acceptance.gateway.people import Device311, Operator, until

BATCH = 40


def states(bridged: Bridged, operator: Operator) -> list[BridgeStatus]:
    return [
        contract.decode(BridgeStatus, record.value or b"")
        for record in operator.records(TRAFFIC)
        if record.key == (BRIDGE_KEY + bridged.name).encode()
    ]


def state(bridged: Bridged, operator: Operator) -> str:
    found = states(bridged, operator)
    return found[-1].state if found else ""


def first_ones(payloads: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(payloads))


def stored(operator: Operator, topic: str) -> list[bytes]:
    return [record.value or b"" for record in operator.records("mqtt.messages") if record.text("mqtt.topic") == topic]


class Flow:
    """While entered, `went_in` and `went_out` grow by what was acknowledged to the clients at both ends."""

    def __init__(self, bridged: Bridged, operator: Operator) -> None:
        self._bridged = bridged
        self._operator = operator
        self.far = Client(bridged.upstream, f"far-{bridged.name}", f"site1/{bridged.name}/#")
        self.here = Device311(bridged.stack, f"here-{bridged.name}")
        self.went_in: list[bytes] = []
        self.went_out: list[bytes] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def _publish(self) -> None:
        name, start = self._bridged.name, 0
        while not self._stop.is_set():
            numbers, start = range(start, start + BATCH), start + BATCH
            into = [(b"in-%d" % n, self.far.client.publish(f"{name}/commands/x", b"in-%d" % n, 1)) for n in numbers]
            out = [(b"out-%d" % n, self.here.client.publish(f"{name}/plant/x", b"out-%d" % n, 1)) for n in numbers]
            for went, sent in ((self.went_in, into), (self.went_out, out)):
                for payload, info in sent:
                    info.wait_for_publish(60)
                    went.append(payload)

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(60)

    def more(self, count: int) -> None:
        """Wait until so many more went each way."""
        wanted = len(self.went_in) + count
        assert until(lambda: len(self.went_in) > wanted)

    def arrived_out(self) -> list[bytes]:
        return [payload for _, payload in self.far.received]

    def arrived_in(self) -> list[bytes]:
        return stored(self._operator, f"upstream/{self._bridged.name}/commands/x")

    def all_arrived(self) -> None:
        """All of it, in order, duplicates aside."""
        gone = lambda: (set(self.went_in) - set(self.arrived_in()), set(self.went_out) - set(self.arrived_out()))  # noqa: E731 - asked often
        assert until(lambda: gone() == (set(), set()), 90), [len(each) for each in gone()]
        assert first_ones(self.arrived_in()) == self.went_in
        assert first_ones(self.arrived_out()) == self.went_out
        self.far.close()


def two_processes(bridged: Bridged, operator: Operator) -> None:
    """One of two processes runs the bridge; when it is killed the other does, and when it comes back it stands by."""
    bridged.set(operator, bridged.definition())
    flow = Flow(bridged, operator)
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)
    owner = states(bridged, operator)[-1].owner
    bridged.second.start()
    try:
        with flow:
            flow.more(200)
            assert states(bridged, operator)[-1].owner == owner, "one that stands by takes nothing"
            bridged.bridge.kill()
            killed = time.monotonic()

            def taken_over() -> bool:
                last = states(bridged, operator)[-1]
                return last.owner == "second" and last.state == "connected"

            assert until(taken_over, 60), states(bridged, operator)[-3:]
            print(f"taken over {time.monotonic() - killed:.1f} s after the kill")
            flow.more(200)
            bridged.bridge.start()
            flow.more(200)
            connected = {each.owner for each in states(bridged, operator) if each.at > time.time() - 2}
            assert len(connected) <= 1, connected
        flow.all_arrived()
    finally:
        bridged.second.stop()
