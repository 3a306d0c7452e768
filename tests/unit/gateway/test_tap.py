"""The tap: between a connection and its session while somebody looks, gone without a trace afterwards."""

from __future__ import annotations

from typing import Any

from gateway import contract
from gateway.contract import TAP, Control, TapReport
from gateway.mqtt.session import Session
from gateway.operations.tap import BURST, LEASE, LONGEST, MOST, Tap, Taps
from gateway.ports import settled
from tests.fakes.mqtt_device import Device, publish, subscribe


class Watched:
    """A connected device, its taps, and what they tell."""

    def __init__(self, version: int = 4) -> None:
        self.now = 1000.0
        self.device = Device().connected(version=version)
        self.device.received()
        # the session's holder, as a `Connection` is
        self.device.link.session = self.device.session  # type: ignore[attr-defined]  # a slot of the real thing
        self.reports: list[TapReport] = []
        self.taps = Taps(
            gateway="g",
            find=lambda client_id: self.device.session if client_id == "d1" else None,
            write=self.write,
            clock=lambda: self.now,
            soon=lambda call: call(),
        )
        self.taps.start = lambda: None  # type: ignore[method-assign]  # the test tells

    def write(self, topic: str, value: bytes | None, key: bytes | None) -> Any:
        assert topic == TAP
        self.reports.append(contract.decode(TapReport, value or b""))
        return settled()

    def order(self, verb: str, tap: str = "t1", **fields: Any) -> None:
        given: dict[str, Any] = {"client_id": "d1", "at": self.now, "seconds": 60.0} | fields
        self.taps.order(Control(verb=verb, tap=tap, **given))

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.device.link.session.receive(frame)  # type: ignore[attr-defined]  # as above

    def rows(self) -> list[dict[str, Any]]:
        self.now += 0.5
        self.taps.tell()
        reports, self.reports = self.reports, []
        return [row for report in reports for row in report.rows]


def test_packets_both_ways_are_told_in_order_and_without_secrets() -> None:
    watched = Watched()
    watched.order("tap")
    watched.send(publish("a/b", b"21", qos=1, packet_id=3), subscribe(("x/#", 1), packet_id=4))
    rows = watched.rows()
    assert [(row["way"], row["type"]) for row in rows] == [
        ("in", "connected"),
        ("in", "PUBLISH"),
        ("out", "PUBACK"),
        ("in", "SUBSCRIBE"),
        ("out", "SUBACK"),
    ]
    assert (rows[1]["topic"], rows[1]["payload"], rows[1]["id"]) == ("a/b", "21", 3)
    assert rows[0]["protocol"] == 4


def test_what_was_read_in_part_before_the_tap_began_is_told_whole() -> None:
    watched = Watched()
    frame = publish("a/b", b"x" * 50, qos=1, packet_id=3)
    watched.send(frame[:9])
    watched.order("tap")
    watched.send(frame[9:], publish("c", b"y"))
    rows = watched.rows()
    assert [(row["type"], row.get("topic")) for row in rows][1:] == [
        ("PUBLISH", "a/b"),
        ("PUBACK", None),
        ("PUBLISH", "c"),
    ]


def test_a_session_nobody_looks_at_has_nothing_in_its_way_before_and_after() -> None:
    watched = Watched()
    link, session = watched.device.link, watched.device.session
    watched.order("tap")
    assert session.link is not link
    assert not isinstance(link.session, Session)  # type: ignore[attr-defined]  # as above
    watched.order("tap", "t2")
    watched.order("tap.stop")
    assert session.link is not link, "another viewer still looks"
    watched.order("tap.stop", "t2")
    assert session.link is link
    assert link.session is session  # type: ignore[attr-defined]  # as above
    assert watched.taps.taps == {}
    watched.send(publish("a", b"x", qos=1, packet_id=9))
    assert watched.device.received()[0][0] == 0x40


def test_a_tap_ends_when_its_time_is_up_or_nobody_renews_it() -> None:
    watched = Watched()
    watched.order("tap", seconds=10 * LONGEST)
    watched.order("tap", "t2")
    for _ in range(int(LONGEST / (LEASE - 1)) + 1):
        watched.now += LEASE - 1
        watched.order("tap.keep")
        watched.taps.tell()
    ended = [report.ended for report in watched.reports if report.ended]
    assert ended == ["unwatched", "time"]
    assert watched.device.session.link is watched.device.link
    watched.order("tap.keep")
    assert watched.taps.taps == {}, "a renewal begins nothing"


def test_faster_than_may_be_shown_is_counted() -> None:
    watched = Watched()
    watched.order("tap")
    watched.send(*[publish("a", b"%d" % number) for number in range(1000)])
    watched.now += 0.5
    watched.taps.tell()
    shown = sum(len(report.rows) for report in watched.reports)
    assert shown <= BURST
    assert shown + sum(report.dropped for report in watched.reports) == 1001


def test_there_are_only_so_many_and_an_old_order_is_not_followed() -> None:
    watched = Watched()
    for number in range(MOST):
        watched.order("tap", f"t{number}", client_id=f"other-{number}")
    watched.order("tap", "one-too-many")
    assert watched.reports[-1].ended
    assert len(watched.taps.taps) == MOST
    late = Watched()
    late.order("tap", at=late.now - 60)
    assert late.taps.taps == {}


def test_a_device_that_goes_and_comes_is_followed() -> None:
    watched = Watched()
    watched.order("tap")
    session = watched.device.session
    session.lost("connection lost")
    watched.taps.closed(session, "connection lost")
    assert [row["type"] for row in watched.rows()] == ["connected", "closed"]
    again = Watched()
    watched.device = again.device
    watched.taps.opened(again.device.session)
    watched.send(publish("back", b""))
    assert [row.get("topic") for row in watched.rows()] == [None, "back"]


def test_a_tap_never_holds_more_than_a_report() -> None:
    tap = Tap("t", "c", 0.0, 60.0)
    for number in range(10_000):
        tap.take({"n": number}, float(number))
    assert len(tap.rows) + tap.dropped == 10_000
    assert len(tap.rows) <= 300
