"""What an operator decides reaches devices wherever they are connected: here at a gateway nobody named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gateway import passwords
from gateway.contract import BANS, DEVICES, Ban, Device
from tests.acceptance.gateway.people import Device311, Operator, until
from tests.acceptance.gateway.stack import Neighbour, Stack

NOT_AUTHORIZED = 0x80  # of a SUBACK, MQTT 3.1.1


@pytest.fixture
def other(running: Stack) -> Iterator[Neighbour]:
    neighbour = Neighbour(running, "neighbour")
    try:
        neighbour.gateway.start()
        yield neighbour
    finally:
        neighbour.gateway.kill()


def seen(what: str, order: Callable[[], object], came_true: Callable[[], object]) -> None:
    """Order, wait for it to be felt, and say how long that took, writing the order included."""
    began = time.monotonic()
    order()
    assert until(came_true), f"{what} was not felt"
    print(f"{what}: felt at the other gateway after {(time.monotonic() - began) * 1000:.0f} ms")


def test_kicks_bans_revocations_and_policies_are_felt_at_another_gateway(
    running: Stack, other: Neighbour, operator: Operator
) -> None:
    secrets = {name: operator.device(name) for name in ("revoked", "disabled", "deleted", "barred")}
    bystander = Device311(other, "bystander")
    kicked, banned = Device311(other, "kicked"), Device311(other, "banned")
    known: dict[str, Device311] = {}

    def signed_in(name: str) -> bool:
        known[name] = Device311(other, name, name, secrets[name])
        return known[name].reason == 0

    for name in secrets:
        assert until(lambda name=name: signed_in(name)), "the registration is in force"  # type: ignore[misc]  # per turn

    seen("a kick", lambda: operator.order("kick", "kicked"), kicked.gone.is_set)
    seen("a ban of a client id", lambda: operator.ban(Ban(kind="client", value="banned")), banned.gone.is_set)
    seen("a ban of a user", lambda: operator.ban(Ban(kind="user", value="barred")), known["barred"].gone.is_set)
    _, credential = passwords.generate()
    device = Device(name="revoked", credentials=(credential,))
    seen("a new credential", lambda: operator.put(DEVICES, "revoked", device), known["revoked"].gone.is_set)
    seen(
        "a device switched off",
        lambda: operator.put(DEVICES, "disabled", replace(device, name="disabled", enabled=False)),
        known["disabled"].gone.is_set,
    )
    seen("a device removed", lambda: operator.put(DEVICES, "deleted", None), known["deleted"].gone.is_set)
    assert Device311(other, "kicked").reason == 0, "a kick keeps nobody out"
    assert Device311(other, "banned").reason != 0
    assert not bystander.gone.is_set(), "nobody else was meant"

    operator.policy("open", publish=("#",), subscribe=("#",), everyone=True)
    reader = Device311(other, "reader")
    assert until(lambda: reader.subscribe("plans/#") == [1])
    writer = Device311(running, "writer")
    assert until(lambda: not writer.publish("plans/1", b"before") and reader.received)
    seen(
        "a narrower policy",
        lambda: operator.policy("open", publish=("#",), subscribe=("news/#",), everyone=True),
        lambda: reader.subscribe("plans/2") == [NOT_AUTHORIZED],
    )
    before = list(reader.received)
    writer.publish("plans/1", b"after")
    assert reader.subscribe("news/#") == [1]
    writer.publish("news/1", b"for all to read")
    assert until(lambda: ("news/1", b"for all to read") in reader.received)
    assert reader.received[len(before) :] == [("news/1", b"for all to read")], "what was granted before is taken away"

    operator.put(BANS, "client:banned", None)
    assert until(lambda: Device311(other, "banned").reason == 0), "a ban that was lifted"
