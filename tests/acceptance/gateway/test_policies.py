"""Denied is denied: seen at the broker topic and at the receiving device, not only in the protocol's answer."""

from __future__ import annotations

from gateway.contract import DEVICES, POLICIES, Ban
from gateway.policy import Policy
from tests.acceptance.gateway.people import Device5, Device311, Operator, until
from tests.acceptance.gateway.stack import Stack

TOPIC = "mqtt.messages"


def payloads(operator: Operator, topic: str = TOPIC) -> list[bytes | None]:
    return [record.value for record in operator.records(topic)]


def test_a_denied_publish_is_never_stored_and_never_received(running: Stack, operator: Operator) -> None:
    secret = operator.device("sensor", policies=("up",))
    operator.policy("up", publish=("up/%u/#",), subscribe=("up/#",))
    operator.policy("all", subscribe=("#",), publish=("other",), everyone=True)
    listener = Device311(running, "listener")
    assert until(lambda: listener.subscribe("#") == [1])
    assert until(lambda: connects(running, "sensor", secret))
    sensor = Device311(running, "sensor", "sensor", secret)
    for topic in ("down/x", "up/else/x", "up", "$SYS/x"):
        for qos in (0, 1, 2):
            for retain in (False, True):
                sensor.publish(topic, b"denied", qos=qos, retain=retain)
    sensor.publish("up/sensor/x", b"allowed")
    assert until(lambda: listener.received == [("up/sensor/x", b"allowed")]), listener.received
    assert payloads(operator) == [b"allowed"]
    assert operator.records("__sluice_retained") == []
    assert operator.records("dlq.gateway") == []


def connects(stack: Stack, user: str, secret: str) -> bool:
    """Whether the gateway knows the device by now."""
    probe = Device311(stack, f"probe-{user}", user, secret)
    probe.close()
    return probe.reason == 0


def test_mqtt_5_tells_a_device_why(running: Stack, operator: Operator) -> None:
    operator.policy("all", subscribe=("a/#",), publish=("a",), everyone=True)
    assert until(lambda: Device311(running, "probe").subscribe("b") == [0x80])
    device = Device5(running, "five")
    codes: list[int] = []
    device.client.on_publish = lambda _, __, ___, reason, ____: codes.append(reason.value)
    device.publish("b", b"denied")
    device.publish("a", b"allowed")
    assert until(lambda: len(codes) == 2) and codes[0] == 0x87 and codes[1] < 0x80
    assert device.subscribe("a/b", "b/c", "#") == [1, 0x87, 0x87]


def test_a_subscribe_with_one_allowed_and_one_denied_filter_grants_the_first(
    running: Stack, operator: Operator
) -> None:
    operator.policy("all", subscribe=("open/#",), publish=("#",), everyone=True)
    listener = Device311(running, "listener")
    assert until(lambda: listener.subscribe("open/x", "secret/#", "+/x", "$share/g/secret/x") == [1, 128, 128, 128])
    device = Device311(running, "device")
    device.publish("secret/x", b"denied")
    device.publish("open/x", b"allowed")
    assert until(lambda: listener.received) and listener.received == [("open/x", b"allowed")]
    assert sorted(map(str, payloads(operator))) == ["b'allowed'", "b'denied'"]


def test_a_will_is_checked_when_set_and_again_when_fired(running: Stack, operator: Operator) -> None:
    operator.policy("all", publish=("will/ok", "will/once"), subscribe=("#",), everyone=True)
    assert until(lambda: Device311(running, "a", will=("will/denied", b"denied")).reason == 135)
    good = Device311(running, "b", will=("will/ok", b"good"))
    once = Device311(running, "c", will=("will/once", b"revoked"))
    assert (good.reason, once.reason) == (0, 0)
    operator.policy("all", publish=("will/ok",), subscribe=("#",), everyone=True)
    assert until(lambda: Device311(running, "d", will=("will/once", b"x")).reason == 135)
    good.break_off()
    once.break_off()
    assert until(lambda: b"good" in payloads(operator))
    assert payloads(operator) == [b"good"]


def test_deliveries_are_checked_and_a_policy_change_reaches_connected_devices(
    running: Stack, operator: Operator
) -> None:
    everything = {"publish": ("#",), "everyone": True}
    operator.policy("all", subscribe=("#",), deny_subscribe=("secret/#",), **everything)
    writer = Device311(running, "writer")
    assert until(lambda: writer.subscribe("secret/x") == [0x80])
    writer.publish("secret/kept", b"denied", retain=True)
    writer.publish("open/kept", b"allowed", retain=True)
    plain, shared = Device311(running, "plain"), Device311(running, "shared")
    keeper = Device311(running, "keeper", clean=False)
    assert plain.subscribe("#") == [1] and shared.subscribe("$share/g/#") == [1] and keeper.subscribe("#") == [1]
    keeper.close()
    writer.publish("secret/x", b"denied")
    writer.publish("open/x", b"allowed")
    assert until(lambda: plain.received and shared.received)
    assert plain.received == shared.received == [("open/x", b"allowed")]
    assert plain.retained == [("open/kept", b"allowed")]
    operator.policy("all", subscribe=("other",), **everything)
    assert until(lambda: writer.subscribe("open/x") == [0x80])
    writer.publish("open/x", b"not any more")
    writer.publish("other", b"end")
    operator.policy("all", subscribe=("#",), **everything)
    assert until(lambda: writer.subscribe("open/x") == [1])
    writer.publish("end", b"end")
    assert until(lambda: ("end", b"end") in plain.received)
    assert ("open/x", b"not any more") not in plain.received + shared.received
    keeper = Device311(running, "keeper", clean=False)
    assert keeper.session_present and until(lambda: ("end", b"end") in keeper.received)
    topics = [topic for topic, _ in keeper.received]
    assert "secret/x" not in topics and ("open/x", b"not any more") not in keeper.received


def test_a_wrong_password_is_refused_even_where_anonymous_use_is_allowed(running: Stack, operator: Operator) -> None:
    secret = operator.device("sensor")
    assert until(lambda: connects(running, "sensor", secret))
    assert Device311(running, "x").reason == 0
    assert Device311(running, "x", "sensor", "wrong").reason in (134, 135)
    assert Device311(running, "x", "nobody", secret).reason in (134, 135)
    assert Device311(running, "sensor").reason not in (0, None), "an anonymous client took a device's id"


def test_a_wrong_password_does_not_disturb_whom_it_names(running: Stack, operator: Operator) -> None:
    secret = operator.device("sensor")
    assert until(lambda: connects(running, "sensor", secret))
    victim = Device311(running, "sensor", "sensor", secret, clean=False)
    victim.subscribe("cmd/#")
    for _ in range(3):
        assert Device311(running, "sensor", "sensor", "guess").reason != 0
    assert not victim.gone.is_set()
    Device311(running, "writer").publish("cmd/x", b"still here")
    assert until(lambda: victim.received == [("cmd/x", b"still here")])


def test_revoking_kicking_and_banning_reach_a_connected_device_within_a_second(
    running: Stack, operator: Operator
) -> None:
    secret = operator.device("sensor")
    assert until(lambda: connects(running, "sensor", secret))
    revoked = Device311(running, "sensor", "sensor", secret)
    operator.put(DEVICES, "sensor", None)
    assert revoked.gone.wait(60)
    kicked = Device311(running, "kicked")
    operator.order("kick", "kicked")
    assert kicked.gone.wait(60)
    assert Device311(running, "kicked").reason == 0
    banned = Device311(running, "banned")
    operator.ban(Ban(kind="client", value="banned", reason="test"))
    assert banned.gone.wait(60)
    assert Device311(running, "banned").reason not in (0, None)
    operator.put("__sluice_bans", "client:banned", None)
    assert until(lambda: Device311(running, "banned").reason == 0)


def test_rules_and_bans_hold_after_kill_9_and_with_a_new_data_folder(running: Stack, operator: Operator) -> None:
    operator.put(POLICIES, "all", Policy(name="all", publish=("a",), everyone=True))
    operator.ban(Ban(kind="client", value="banned"))
    assert until(lambda: Device311(running, "banned").reason not in (0, None))
    running.gateway.kill()
    for file in (running.folder / "data").glob("gateway-*.sqlite3*"):
        file.unlink()
    running.gateway.start()
    assert Device311(running, "banned").reason not in (0, None)
    assert Device311(running, "fine").subscribe("a") == [0x80]
