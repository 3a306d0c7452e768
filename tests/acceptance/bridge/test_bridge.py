"""A bridge to mosquitto, TLS and password: both ways, at least once, whoever is killed."""

from __future__ import annotations

import time

import pytest

from gateway import contract
from tests.acceptance.bridge.conftest import Bridged, Client
from tests.acceptance.bridge.flow import Flow, first_ones, state, states, stored, two_processes
from tests.acceptance.gateway.people import Device311, Operator, until


def test_messages_go_both_ways_with_their_prefixes_and_never_in_circles(bridged: Bridged, operator: Operator) -> None:
    bridged.set(operator, bridged.definition())
    far = Client(bridged.upstream, f"far-{bridged.name}", "#")
    here = Device311(bridged.stack, f"here-{bridged.name}")
    here.subscribe("#")
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)
    far.publish(f"{bridged.name}/commands/valve", b"open")
    here.publish(f"{bridged.name}/plant/7/x", b"21.5")
    here.publish("elsewhere", b"stays")
    assert until(lambda: (f"upstream/{bridged.name}/commands/valve", b"open") in here.received)
    assert until(lambda: (f"site1/{bridged.name}/plant/7/x", b"21.5") in far.received)
    far.publish(f"{bridged.name}/commands/valve", b"last")
    assert until(lambda: (f"upstream/{bridged.name}/commands/valve", b"last") in here.received)
    here.publish(f"{bridged.name}/plant/7/x", b"last")
    assert until(lambda: (f"site1/{bridged.name}/plant/7/x", b"last") in far.received)
    # `upstream/#` is sent out, but not what came in by this bridge
    assert [topic for topic, _ in far.received if "upstream" in topic or "elsewhere" in topic] == []
    assert len(far.received) == 4
    record = next(each for each in operator.records("mqtt.messages") if each.value == b"open")
    assert record.text("mqtt.client.id") == f"$bridge/{bridged.name}"
    assert until(lambda: (last := states(bridged, operator)[-1]).received == 2 and last.sent == 2 and last.lag == 0)
    far.close()


def test_a_wrong_password_or_authority_is_said_and_a_changed_definition_is_taken_up(
    bridged: Bridged, operator: Operator
) -> None:
    bridged.set(operator, bridged.definition(password="wrong"))
    assert until(lambda: any("upstream refuses" in each.error for each in states(bridged, operator)), 30)
    assert state(bridged, operator) == "failing"
    bridged.set(operator, bridged.definition(ca=""))
    assert until(lambda: "certificate" in states(bridged, operator)[-1].error.lower()), states(bridged, operator)[-1]
    good = bridged.definition()
    moved = bridged.definition(address=f"mqtts://localhost:{bridged.upstream.port}")
    stolen = contract.decode(
        type(moved), contract.encode(moved).replace(moved.password.encode(), good.password.encode())
    )
    bridged.set(operator, stolen)  # the password of one address is no password for another
    assert until(lambda: state(bridged, operator) == "refused"), states(bridged, operator)[-1]
    bridged.set(operator, good)
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)[-1]
    bridged.set(operator, bridged.definition(enabled=False))
    assert until(lambda: state(bridged, operator) == "disabled")
    bridged.set(operator, None)
    assert until(lambda: state(bridged, operator) == "gone")
    everything = b"".join(record.value or b"" for record in operator.records("__sluice_bridges"))
    assert b"a secret of the upstream" not in everything
    assert b"a secret of the upstream" not in bridged.bridge.since_start()


def test_nothing_is_lost_in_or_out_while_the_bridge_is_killed_again_and_again(
    bridged: Bridged, operator: Operator
) -> None:
    bridged.set(operator, bridged.definition())
    flow = Flow(bridged, operator)
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)
    with flow:
        for pause in (0.3, 0.9, 0.5):
            flow.more(200)
            time.sleep(pause)
            bridged.bridge.kill()
            bridged.bridge.start()
    flow.all_arrived()


@pytest.mark.torture  # the same steps as in test_bridge_on_kafka, which always runs
def test_another_bridge_process_takes_over_from_a_killed_one_and_nothing_is_lost(
    bridged: Bridged, operator: Operator
) -> None:
    two_processes(bridged, operator)


def test_nothing_is_lost_when_the_upstream_is_killed_and_what_waited_arrives(
    bridged: Bridged, operator: Operator
) -> None:
    bridged.set(operator, bridged.definition())
    far, here = (
        Client(bridged.upstream, f"far-{bridged.name}", f"site1/{bridged.name}/#"),
        Device311(bridged.stack, f"here-{bridged.name}"),
    )
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)
    far.publish(f"{bridged.name}/commands/x", b"in-0")
    assert until(lambda: stored(operator, f"upstream/{bridged.name}/commands/x") == [b"in-0"])
    bridged.bridge.kill()
    for number in range(1, 200):
        far.publish(f"{bridged.name}/commands/x", b"in-%d" % number)
    bridged.upstream.save()  # from here on it would not forget them in a crash either
    bridged.upstream.kill()
    for number in range(300):
        here.publish(f"{bridged.name}/plant/x", b"out-%d" % number)
    bridged.bridge.start()
    assert until(lambda: state(bridged, operator) == "failing")
    bridged.upstream.start()
    assert until(lambda: len({payload for _, payload in far.received}) == 300, 90), len(far.received)
    assert first_ones([payload for _, payload in far.received]) == [b"out-%d" % number for number in range(300)]
    expected = [b"in-%d" % number for number in range(200)]
    assert until(lambda: first_ones(stored(operator, f"upstream/{bridged.name}/commands/x")) == expected, 90)
    far.close()


def test_what_could_not_be_stored_is_not_acknowledged_to_the_upstream(bridged: Bridged, operator: Operator) -> None:
    bridged.set(operator, bridged.definition(outbound=()))
    far = Client(bridged.upstream, f"far-{bridged.name}")
    assert until(lambda: state(bridged, operator) == "connected"), states(bridged, operator)
    bridged.stack.broker.kill()
    expected = [b"in-%d" % number for number in range(30)]
    for payload in expected:
        far.publish(f"{bridged.name}/commands/x", payload)
    time.sleep(1.0)  # the bridge has them by now, and nowhere to put them
    bridged.bridge.kill()
    bridged.stack.broker.start()
    bridged.bridge.start()
    assert until(lambda: first_ones(stored(operator, f"upstream/{bridged.name}/commands/x")) == expected, 90)
    far.close()
