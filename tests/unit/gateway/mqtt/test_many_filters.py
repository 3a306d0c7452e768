"""A SUBSCRIBE or UNSUBSCRIBE of many filters is taken in small steps, and as one packet all the same."""

from __future__ import annotations

import pytest

from gateway.mqtt.filters import subscribe as take
from gateway.mqtt.packets import MOST_FILTERS
from gateway.ports import Limits
from tests.fakes.gateway_engine import Rules
from tests.fakes.mqtt_device import DISCONNECT, PINGREQ, Device, connect, packet, publish, subscribe, text, unsubscribe

NAMES = [f"many/{number}" for number in range(MOST_FILTERS)]
MANY = subscribe(*((name, 1) for name in NAMES))
RULES = Rules(limits=Limits(subscriptions=0))


def device() -> Device:
    """One that was granted whatever it asked for, and whose steps are done when the test says so."""
    return Device(rules=RULES, manual=True).connected()


@pytest.mark.parametrize("sent", [MANY, unsubscribe(*NAMES)])
def test_many_filters_take_many_steps_and_what_is_behind_them_waits(sent: bytes) -> None:
    case = device()
    case.send(sent + publish("many/1", b"x"), PINGREQ)
    steps = 0
    while case.engine.works:
        assert not case.engine.published and not case.engine.open_receipts and not case.received()
        assert case.link.reading, "or nobody would hear that it is gone"
        case.engine.step()
        steps += 1
    assert steps > 100
    assert case.engine.open_receipts and not case.engine.published
    case.engine.settle_all()
    assert [topic for _, topic, _, _ in case.engine.published] == ["many/1"]
    answers = [first for first, _ in case.received()]
    assert answers[0] in (0x90, 0xB0) and answers[-1] == 0xD0 and case.link.reading


@pytest.mark.parametrize("wrong", [b"\x00\x05a/#/b", b"\x00\x01\xff", b"\x00\x00", b"\x00\x09short"])
@pytest.mark.parametrize("kind", [0x82, 0xA2])
def test_one_malformed_filter_far_behind_ends_the_connection_with_nothing_changed(kind: int, wrong: bytes) -> None:
    case = device()
    case.send(subscribe(("before", 0)))
    case.engine.settle_all()
    case.engine.subscribe = lambda *_: pytest.fail("the engine was asked")  # type: ignore[method-assign]
    case.engine.unsubscribe = lambda *_: pytest.fail("the engine was asked")  # type: ignore[method-assign]
    option = b"\x00" if kind == 0x82 else b""
    good = [text(name) + option for name in NAMES[:1_000]]
    body = b"\x00\x01" + b"".join(good[:900]) + wrong + option + b"".join(good[900:])
    case.send(packet(kind, body))
    assert not case.link.closed, "it is not seen yet"
    case.engine.go_on()
    assert case.link.closed and case.session.blamed == "0x81"
    [(_, ending)] = case.engine.endings
    assert [each.filter for each in ending.state.subscriptions] == ["before"]


def test_more_filters_than_a_packet_may_have_are_granted_none() -> None:
    case = device()
    case.send(subscribe(*((name, 1) for name in [*NAMES, "more"])))
    case.engine.settle_all()
    assert case.link.closed and case.session.blamed == "0x97" and case.engine.fanout.count == 0


@pytest.mark.parametrize("ends", ["lost", "taken over", "kicked"])
def test_nothing_more_is_done_for_who_is_gone(ends: str) -> None:
    case = device()
    case.send(MANY)
    case.engine.step()
    if ends == "lost":
        case.session.lost("closed by peer")
    elif ends == "kicked":
        case.session.close(0x98, "kicked")
    else:
        Device(case.engine).send(connect("d1"))
        case.engine.open_receipts.clear()
    case.engine.step()
    assert not case.engine.works and not case.engine.open_receipts and case.engine.fanout.count == 0


def test_so_much_is_read_ahead_and_no_more() -> None:
    case = device()
    case.send(MANY)
    read = 0
    while case.link.reading:
        case.send(publish("many/1", b"x" * 1_000))
        read += 1
    assert read == 17
    case.engine.settle_all()
    assert case.link.reading and len(case.engine.published) == 17


def test_a_disconnect_behind_many_filters_comes_after_them() -> None:
    case = device()
    case.send(MANY + DISCONNECT)
    case.engine.go_on()
    assert not case.session.closed
    case.engine.settle_all()
    assert case.session.closed and [len(ending.state.subscriptions) for _, ending in case.engine.endings] == [2_000]


def test_few_filters_are_asked_for_at_once() -> None:
    case = device()
    take(case.session, subscribe(*((name, 0) for name in NAMES[:8]))[2:])
    assert case.engine.open_receipts and not case.engine.works
