from __future__ import annotations

import dataclasses

import pytest

from gateway.mqtt.surroundings import Settings
from gateway.ports import Limits, Receipt, Refused
from tests.fakes.gateway_engine import MemoryEngine, Rules
from tests.fakes.mqtt_device import DISCONNECT, PINGREQ, Device, ack, connect, packet, publish, subscribe, text


@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_connect_is_answered_in_its_own_dialect(version: int) -> None:
    device = Device().send(connect(version=version))
    [(first, body)] = device.received()
    assert first == 0x20
    assert body[:2] == b"\x00\x00"
    assert (len(body) > 2) is (version == 5)


def test_an_mqtt_5_client_is_told_the_limits_it_has_to_keep() -> None:
    limits = Limits(packet_size=1000, in_flight=7, topic_aliases=3, keep_alive=30, qos=1, retain=False)
    device = Device(rules=Rules(limits=limits)).send(connect("", version=5, keep_alive=60))
    [(_, body)] = device.received()
    assert b"\x27" + (1000).to_bytes(4, "big") in body
    assert b"\x21\x00\x07" in body  # receive maximum
    assert b"\x22\x00\x03" in body  # topic alias maximum
    assert b"\x13\x00\x1e" in body  # server keep alive
    assert b"\x24\x01" in body  # maximum QoS
    assert b"\x25\x00" in body  # retain available
    assert b"\x12" + text(device.session.client_id) in body
    assert device.session.client_id


def test_response_information_is_given_to_those_who_ask() -> None:
    settings = Settings(response_information="replies/{client_id}")
    asking = Device(settings=settings).send(connect(version=5, properties=b"\x19\x01"))
    assert b"\x1a" + text("replies/d1") in asking.received()[0][1]
    not_asking = Device(settings=settings).send(connect(version=5))
    assert b"replies" not in not_asking.received()[0][1]


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (connect("", version=4, clean=False), b"\x20\x02\x00\x02"),
        (connect("", version=3), b"\x20\x02\x00\x02"),
        (packet(0x10, text("MQTT") + b"\x06\x02\x00\x0a" + text("d")), b"\x20\x02\x00\x01"),
        (connect(will=("a/#", b"x", 0, False)), b"\x20\x02\x00\x03"),
    ],
)
def test_what_a_server_may_not_accept_is_refused_by_a_connack(sent: bytes, answer: bytes) -> None:
    device = Device().send(sent)
    assert bytes(device.link.out) == answer
    assert device.link.closed


@pytest.mark.parametrize(
    "sent",
    [
        PINGREQ,
        publish("a", b"x"),
        subscribe(("a", 0)),
        DISCONNECT,
        packet(0xF0, b"\x18\x00"),
        b"GET / HTTP/1.1\r\n\r\n",
        packet(0x10, text("MQTT") + b"\x04\x03\x00\x0a" + text("d")),  # reserved flag
        packet(0x10, text("MQTT") + b"\x04\x1e\x00\x0a" + text("d") + text("w") + text("")),  # will QoS 3
        packet(0x10, text("MQTT") + b"\x04\x22\x00\x0a" + text("d")),  # will retain without will
        packet(0x10, text("MQTT") + b"\x04\x42\x00\x0a" + text("d") + text("pw")),  # password without a name
        packet(0x10, text("MQTT") + b"\x04\x02\x00\x0a" + text("d") + b"more"),
        packet(0x10, text("MQTT") + b"\x04\x02\x00\x0a" + text(b"\xff")),
        packet(0x10, text("MQTT") + b"\x04\x02\x00\x0a" + text("a\x00b")),
        packet(0x10, text("HTTP") + b"\x04\x02\x00\x0a" + text("d")),
        packet(0x12, text("MQTT") + b"\x04\x02\x00\x0a" + text("d")),
        packet(0x10),
    ],
)
def test_anything_but_a_well_formed_connect_closes_without_a_word(sent: bytes) -> None:
    device = Device().send(sent)
    assert device.link.closed
    assert not device.link.out
    assert device.session.blamed


def test_a_first_packet_beyond_64_kb_is_not_waited_for() -> None:
    device = Device().send(b"\x10\x81\x80\x04")
    assert device.link.closed


@pytest.mark.parametrize("header", [b"\x10\xff\xff\xff\xff", b"\x10\x80\x80\x80\x80\x01"])
def test_a_length_of_five_bytes_closes_before_the_fifth(header: bytes) -> None:
    device = Device().send(header[:5])
    assert device.link.closed


def test_a_second_connect_is_a_protocol_error() -> None:
    device = Device().connected().send(connect())
    assert device.link.closed
    five = Device().connected(version=5).send(connect(version=5))
    [(first, body)] = five.received()
    assert (first, body[0]) == (0xE0, 0x82)


def test_a_connect_that_drips_in_byte_by_byte_is_understood() -> None:
    device = Device()
    for byte in connect("slow", version=5):
        device.send(bytes([byte]))
    assert device.received()[0][1][1] == 0


def test_packets_behind_the_connect_wait_until_the_engine_has_answered() -> None:
    engine = MemoryEngine(manual=True)
    device = Device(engine).send(connect() + publish("a", b"x") + PINGREQ)
    assert not engine.published
    assert not device.link.reading
    engine.settle_all()
    assert [first for first, _ in device.received()] == [0x20, 0xD0]
    assert engine.published == [("d1", "a", b"x", 0)]
    assert device.link.reading


def test_no_complete_connect_in_five_seconds_closes() -> None:
    device = Device().send(connect()[:7])
    device.pass_time(4.9)
    assert not device.link.closed
    device.pass_time(0.2)
    assert device.link.closed


def test_a_client_that_says_nothing_for_one_and_a_half_keep_alives_is_closed() -> None:
    device = Device().connected(version=5, keep_alive=10)
    device.pass_time(14)
    device.send(PINGREQ)
    device.pass_time(14)
    assert not device.link.closed
    device.pass_time(2)
    assert device.link.closed
    assert device.received()[-1][1][0] == 0x8D


def test_nobody_is_closed_for_what_could_not_be_read_while_the_gateway_was_late() -> None:
    device, silent = Device().connected(version=5, keep_alive=10), Device().send(connect()[:7])
    for each in (device, silent):
        each.moment.monotonic += 100
        each.session.tick(late=95)
        assert not each.link.closed
    device.send(PINGREQ)
    device.pass_time(14)
    silent.pass_time(1)
    assert not device.link.closed and silent.link.closed


def test_keep_alive_zero_never_runs_out() -> None:
    device = Device().connected(keep_alive=0)
    device.pass_time(1_000_000)
    assert not device.link.closed


def test_a_wrong_password_is_refused_in_both_dialects_and_touches_nobody() -> None:
    engine = MemoryEngine(Rules(users={"u": b"right"}))
    victim = Device(engine).connected(username="u", password=b"right", clean=False)
    attacker = Device(engine).send(connect(username="u", password=b"wrong"))
    assert bytes(attacker.link.out) == b"\x20\x02\x00\x04"
    attacker5 = Device(engine).send(connect(version=5, username="u", password=b"wrong"))
    assert attacker5.received()[0][1][1] == 0x86
    assert not victim.link.closed
    assert engine.live["d1"] is victim.session
    assert [client for client, _ in engine.endings] == []


def test_the_password_is_forgotten_after_authentication() -> None:
    device = Device(rules=Rules(users={"u": b"right"})).connected(username="u", password=b"right")
    assert device.session.request.password is None


def test_a_take_over_tells_the_older_connection_why() -> None:
    engine = MemoryEngine()
    older = Device(engine).connected(version=5)
    newer = Device(engine).connected(version=5)
    assert older.link.closed and not newer.link.closed
    assert older.received()[0][1][0] == 0x8E
    assert (older.session.blamed, older.session.why) == ("taken-over", "taken-over"), "people hear of it"
    assert not newer.session.blamed
    assert engine.live["d1"] is newer.session


def test_a_connack_larger_than_the_client_takes_is_not_sent() -> None:
    device = Device().send(connect(version=5, properties=b"\x27\x00\x00\x00\x05"))
    assert device.link.closed and not device.link.out


def test_enhanced_authentication_goes_round_until_the_engine_is_content() -> None:
    method = b"\x15" + text("X-ECHO")
    device = Device().send(connect(version=5, properties=method))
    assert device.received() == [(0xF0, b"\x18" + bytes([len(method) + 9]) + method + b"\x16" + text("say it"))]
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 7]) + method + b"\x16" + text("more")))
    assert device.received()[0][0] == 0xF0
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 5]) + method + b"\x16" + text("it")))
    [(first, body)] = device.received()
    assert (first, body[1]) == (0x20, 0)
    assert method in body and b"\x16" + text("welcome") in body


def test_a_wrong_answer_to_the_challenge_is_refused() -> None:
    method = b"\x15" + text("X-ECHO")
    device = Device().send(connect(version=5, properties=method))
    device.received()
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 6]) + method + b"\x16" + text("not")))
    assert device.received()[0][1][1] == 0x87
    assert device.link.closed


@pytest.mark.parametrize("sent", [PINGREQ, publish("a", b"", properties=b""), packet(0xF0, b"\x19\x00")])
def test_a_challenged_peer_may_only_answer_the_challenge(sent: bytes) -> None:
    device = Device().send(connect(version=5, properties=b"\x15" + text("X-ECHO")))
    device.send(sent)
    assert device.link.closed
    assert not device.engine.published


def test_a_connected_client_can_authenticate_again_and_keeps_working_meanwhile() -> None:
    method = b"\x15" + text("X-ECHO")
    device = Device().send(connect(version=5, properties=method))
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 5]) + method + b"\x16" + text("it")))
    device.received()
    device.send(packet(0xF0, b"\x19" + bytes([len(method)]) + method))
    assert device.received()[0][1][0] == 0x18
    device.send(PINGREQ)
    assert device.received() == [(0xD0, b"")]
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 5]) + method + b"\x16" + text("it")))
    assert device.received()[0][1][0] == 0
    device.send(packet(0xF0, b"\x19" + bytes([len(method)]) + method))
    device.received()
    device.send(packet(0xF0, b"\x18" + bytes([len(method) + 6]) + method + b"\x16" + text("bad")))
    [(first, body)] = device.received()
    assert (first, body[0]) == (0xE0, 0x87)
    assert device.link.closed


def test_an_unknown_authentication_method_is_named_as_such() -> None:
    device = Device().send(connect(version=5, properties=b"\x15" + text("NO-SUCH")))
    assert device.received()[0][1][1] == 0x8C


def test_a_refusal_can_point_to_another_server() -> None:
    class Elsewhere(MemoryEngine):
        def authenticate(self, request: object) -> Receipt[object]:  # type: ignore[override]
            receipt: Receipt[object] = Receipt()
            receipt.fail(Refused(0x9D, "", server_reference="other:1883", why="elsewhere"))
            return receipt

    device = Device(Elsewhere()).send(connect(version=5))
    [(_, body)] = device.received()
    assert body[1] == 0x9D
    assert b"\x1c" + text("other:1883") in body
    assert (device.session.blamed, device.session.why) == ("refused-0x9d", "elsewhere")
    three = Device(Elsewhere()).send(connect())
    assert bytes(three.link.out) == b"\x20\x02\x00\x03"


def test_a_disconnect_can_point_to_another_server() -> None:
    device = Device().connected(version=5)
    device.session.close(0x9C, "", server_reference="other:1883")
    [(first, body)] = device.received()
    assert first == 0xE0 and body[0] == 0x9C
    assert b"\x1c" + text("other:1883") in body


def test_a_credential_that_runs_out_ends_the_connection() -> None:
    device = Device().connected(version=5, keep_alive=0)
    device.session.identity = dataclasses.replace(device.session.identity, expires_at=device.moment.wall + 10)
    device.pass_time(9)
    assert not device.link.closed
    device.pass_time(2)
    assert device.received()[0][1][0] == 0x87


def test_reason_strings_stay_home_when_the_client_does_not_want_them() -> None:
    wanting = Device().connected(version=5)
    wanting.session.close(0x98, "closed by an operator")
    assert b"operator" in wanting.received()[0][1]
    not_wanting = Device().connected(version=5, properties=b"\x17\x00")
    not_wanting.session.close(0x98, "closed by an operator")
    assert not_wanting.received() == [(0xE0, b"\x98")]


def test_the_end_is_told_to_the_engine_once_with_the_will_or_without() -> None:
    engine = MemoryEngine()
    gone = Device(engine).connected("gone")
    gone.session.lost("connection lost")
    gone.session.lost("again")
    polite = Device(engine).connected("polite").send(DISCONNECT)
    polite.session.lost("closed by peer")
    with_will = Device(engine).connected("with-will", version=5).send(packet(0xE0, b"\x04\x00"))
    with_will.session.lost("closed by peer")
    assert [(client, ending.will) for client, ending in engine.endings] == [
        ("gone", True),
        ("polite", False),
        ("with-will", True),
    ]


def test_an_expiry_can_be_changed_at_the_end_but_not_invented() -> None:
    engine = MemoryEngine()
    keeping = Device(engine).connected("a", version=5, properties=b"\x11\x00\x00\x00\x64")
    keeping.send(packet(0xE0, b"\x00\x05\x11\x00\x00\x00\x05"))
    assert engine.endings[-1][1].session_expiry == 5
    inventing = Device(engine).connected("b", version=5)
    inventing.send(packet(0xE0, b"\x00\x05\x11\x00\x00\x00\x05"))
    assert inventing.received()[-1][1][0] == 0x82
    assert engine.endings[-1][1].session_expiry == 0
    assert engine.endings[-1][1].will


def test_a_connection_lost_while_its_session_opens_gives_the_state_back() -> None:
    engine = MemoryEngine()
    Device(engine).connected(clean=False).send(subscribe(("a", 1)), DISCONNECT)
    engine.manual = True
    device = Device(engine).send(connect(clean=False))
    device.session.lost("connection lost")
    assert len(engine.endings) == 1
    engine.settle_all()
    assert len(engine.endings) == 2
    assert [entry.filter for entry in engine.kept["d1"].state.subscriptions] == ["a"]
    assert "d1" not in engine.live
    assert not device.link.out


def test_an_unexpected_acknowledgement_is_no_reason_to_close() -> None:
    device = Device().connected()
    device.send(ack(0x40, 9), ack(0x70, 9))
    assert not device.link.closed


@pytest.mark.parametrize(("code", "told"), [(0x8B, 0x88), (0x8E, 0x80), (0x98, 0x80), (0x86, 0x86), (0x9D, 0x9D)])
def test_a_refusing_connack_carries_no_code_that_is_not_its_own(code: int, told: int) -> None:
    """MQTT 5, 3.2.2.2: a client may take any other for malformed."""
    device = Device(manual=True)
    device.send(connect(version=5))
    device.session.close(code, "why")
    (first, body) = device.received()[0]
    assert (first, body[1]) == (0x20, told)


@pytest.mark.parametrize(("code", "told"), [(0x8A, 0x87), (0x88, 0x89), (0x86, 0x87), (0x91, 0x80), (0x8E, 0x8E)])
def test_a_disconnect_carries_no_code_that_is_not_its_own(code: int, told: int) -> None:
    """MQTT 5, 3.14.2.1."""
    device = Device().connected(version=5)
    device.session.close(code, "why")
    (first, body) = device.received()[0]
    assert (first, body[0]) == (0xE0, told)


def test_a_refusal_fits_into_what_the_client_takes() -> None:
    """MQTT-3.2.2-19: rather without a reason."""
    device = Device(rules=Rules(users={"u": b"p"}))
    device.send(connect(version=5, username="u", password=b"no", properties=b"\x27\x00\x00\x00\x05"))
    assert device.received() == [(0x20, b"\x00\x86\x00")]
