"""Every way in and out, under every kind of deny: checked at the broker topic and at the receiving device."""

from __future__ import annotations

from gateway import contract
from gateway.contract import COMMANDS, POLICIES, Command
from gateway.policy import Policy
from gateway.routes import Downlink
from tests.acceptance.gateway.people import Device311, Operator, until
from tests.acceptance.gateway.stack import Stack

EVERYTHING = ("#",)
KINDS: dict[str, Policy | bytes | None] = {
    "empty": Policy(name="empty"),
    "elsewhere": Policy(name="elsewhere", publish=("other/#",), subscribe=("other/#",)),
    "denied": Policy(
        name="denied",
        publish=EVERYTHING,
        subscribe=EVERYTHING,
        deny_publish=("secret/#",),
        deny_subscribe=("secret/#",),
    ),
    "malformed": Policy(name="malformed", publish=("secret/#/x",), subscribe=("secret/#/x", "sec#")),
    "malformed-deny": Policy(
        name="malformed-deny",
        publish=EVERYTHING,
        subscribe=EVERYTHING,
        deny_publish=("a/#/b",),
        deny_subscribe=("a/#/b",),
    ),
    "unreadable": b"{no policy",
    "gone": None,  # the device names a policy that is not there
}
FILTERS = ("secret/#", "#", "+/+", "$share/g/secret/#")


def payloads(operator: Operator, topic: str) -> set[bytes]:
    return {record.value or b"" for record in operator.records(topic)}


def test_no_way_in_or_out_is_open_under_any_kind_of_deny(running: Stack, operator: Operator) -> None:
    operator.policy("insiders", publish=EVERYTHING, subscribe=EVERYTHING)
    for name, policy in KINDS.items():
        if isinstance(policy, bytes):
            operator.send(POLICIES, policy, name.encode())
        elif policy is not None:
            operator.put(POLICIES, name, policy)
    operator.route(Downlink(name="orders", topic="orders", mqtt_topic="secret/{key}", client_id="{key}"))
    secrets = {name: operator.device(name, policies=(name,)) for name in KINDS}
    secrets["insider"] = operator.device("insider", policies=("insiders",))

    def device(name: str, **options: object) -> Device311:
        return Device311(running, name, name, secrets[name], **options)

    assert until(lambda: device("insider").reason == 0), "the devices are known"
    insider = device("insider", clean=False)
    assert until(lambda: insider.subscribe("secret/#") == [1])
    first = ("secret/insider", b"first")
    assert until(lambda: not operator.send("orders", b"first", b"insider") and first in insider.received)
    insider.publish("secret/kept", b"kept by an insider", retain=True)

    outcasts = {name: device(name, clean=False) for name in KINDS}
    for name, outcast in outcasts.items():
        assert outcast.reason == 0
        for qos in (0, 1, 2):
            for retain in (False, True):
                outcast.publish(f"secret/{name}", b"published by " + name.encode(), qos=qos, retain=retain)
        outcast.subscribe(*FILTERS)
        will = (f"secret/{name}", b"will of " + name.encode())
        assert Device311(running, f"{name}-will", name, secrets[name], will=will).reason != 0, name
    insider.publish("secret/live", b"for insiders", qos=2)
    assert until(lambda: ("secret/live", b"for insiders") in insider.received)
    for outcast in outcasts.values():
        outcast.close()
    insider.publish("secret/replayed", b"while they were away", qos=1)
    for name in KINDS:
        operator.send("orders", b"order for " + name.encode(), name.encode())
    operator.send("orders", b"order for an insider", b"insider")
    assert until(lambda: ("secret/insider", b"order for an insider") in insider.received)
    back = {name: device(name, clean=False) for name in KINDS}
    for outcast in back.values():
        outcast.subscribe(*FILTERS)
        outcast.close()  # what is on its way to it comes before the end
    heard = {name: [*outcasts[name].messages, *outcast.messages] for name, outcast in back.items()}
    assert heard == {name: [] for name in KINDS}
    assert payloads(operator, "mqtt.messages") == {b"kept by an insider", b"for insiders", b"while they were away"}
    assert {record.key for record in operator.records("__sluice_retained")} == {b"secret/kept"}
    assert operator.records("dlq.gateway") == []

    def states() -> dict[str, str]:
        found = [contract.decode(Command, record.value or b"") for record in operator.records(COMMANDS)]
        return {each.client_id: each.state for each in found}

    assert until(lambda: states() == dict.fromkeys(KINDS, "failed") | {"insider": "delivered"}), states()
