"""MQTT topic → broker topic, key, headers; and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import contract
from gateway.routes import (
    DEFAULT,
    Downlink,
    Incoming,
    Outgoing,
    Placed,
    Refusal,
    Table,
    Uplink,
    could_write,
    fixed,
    outgoing,
    place,
    problems,
)


def message(topic: str = "site/k1/temp", payload: bytes = b"{}", user: str = "u1") -> Incoming:
    return Incoming(topic=topic, payload=payload, client_id="c1", username=user, qos=1)


def placed(route: Uplink, incoming: Incoming) -> Placed:
    found = place(route, incoming)
    assert isinstance(found, Placed), found
    return found


def refused(route: Uplink, incoming: Incoming) -> Refusal:
    found = place(route, incoming)
    assert isinstance(found, Refusal), found
    return found


def test_without_a_route_messages_go_to_the_default_topic_keyed_by_client_id() -> None:
    assert Table().find("any/topic") is DEFAULT
    found = placed(DEFAULT, message(user=""))
    assert (found.topic, found.key) == (contract.DEFAULT_UPLINK, b"c1")


def test_the_first_matching_route_by_priority_and_name_decides() -> None:
    table = Table(
        [
            Uplink(name="b", filter="a/#", topic="second"),
            Uplink(name="a", filter="a/#", topic="first"),
            Uplink(name="z", filter="a/b", topic="urgent", priority=1),
            Uplink(name="off", filter="#", topic="never", priority=0, enabled=False),
        ]
    )
    assert [table.find(topic).topic for topic in ("a/b", "a/c", "x")] == ["urgent", "first", "mqtt.messages"]


def test_templates_take_wildcards_names_and_payload_members() -> None:
    route = Uplink(
        name="r",
        filter="site/+/#",
        topic="iot.{1}",
        key="{payload.device.ids.0}",
        headers={"rest": "{2}", "who": "{client_id}/{username}", "braces": "{{x}}", "t": "{topic}", "q": "{qos}"},
    )
    found = placed(route, message("site/k1/a/b", b'{"device": {"ids": [7, 8]}}'))
    assert (found.topic, found.key) == ("iot.k1", b"7")
    assert dict(found.headers) == {"rest": "a/b", "who": "c1/u1", "braces": "{x}", "t": "site/k1/a/b", "q": "1"}


@pytest.mark.parametrize(
    ("route", "incoming", "reason"),
    [
        (Uplink(name="r", filter="#", key="{payload.id}"), message(payload=b"not json"), "render"),
        (Uplink(name="r", filter="#", key="{payload.id}"), message(payload=b'{"x": 1}'), "render"),
        (Uplink(name="r", filter="#", key="{payload.id}"), message(payload=b'{"id": {}}'), "render"),
        (Uplink(name="r", filter="#", key="{username}"), message(user=""), "render"),
        (Uplink(name="r", filter="+/#", topic="iot.{1}"), message("a b/c"), "render"),
        (Uplink(name="r", filter="+/#", topic="{1}", allow=("ok.*",)), message("evil/c"), "render"),
        (Uplink(name="r", filter="+/#", topic="{1}", allow=("*",)), message("__sluice_devices/c"), "render"),
        (Uplink(name="r", filter="#", max_size=3), message(payload=b"1234"), "size"),
        (Uplink(name="r", filter="#", json_only=True), message(payload=b"{"), "json"),
        (Uplink(name="r", filter="#", schema={"type": "object", "required": ["t"]}), message(), "schema"),
    ],
)
def test_what_cannot_be_placed_is_refused_with_a_reason(route: Uplink, incoming: Incoming, reason: str) -> None:
    found = refused(route, incoming)
    assert found.reason == reason and found.detail and found.route == "r"


def test_a_schema_lets_what_fits_pass() -> None:
    route = Uplink(name="r", filter="#", schema={"type": "object", "required": ["t"]})
    assert placed(route, message(payload=b'{"t": 1}')).topic == "mqtt.messages"


@pytest.mark.parametrize(
    "route",
    [
        Uplink(name="r", filter="a/#/b"),
        Uplink(name="r", filter="#", topic="{1"),
        Uplink(name="r", filter="#", topic="x.{2}"),
        Uplink(name="r", filter="#", topic="{1}"),
        Uplink(name="r", filter="#", topic="__sluice_devices"),
        Uplink(name="r", filter="#", topic=""),
        Uplink(name="r", filter="#", key="{nothing}"),
        Uplink(name="r", filter="#", sample=2.0),
        Uplink(name="r", filter="#", schema={"type": "no such type"}),
        Downlink(name="r", topic="__x", mqtt_topic="a"),
        Downlink(name="r", topic="t", mqtt_topic="{client_id}"),
    ],
)
def test_a_bad_route_is_named_and_left_out(route: Uplink | Downlink) -> None:
    assert problems(route)
    if isinstance(route, Uplink):
        table = Table([route])
        assert table.routes == () and "r" in table.broken


def test_a_place_is_fixed_when_it_depends_on_device_and_topic_alone() -> None:
    assert fixed(DEFAULT)
    assert fixed(Uplink(name="r", filter="+/#", topic="a.{1}", key="{topic}"))
    assert not fixed(Uplink(name="r", filter="#", key="{payload.x}"))
    assert not fixed(Uplink(name="r", filter="#", max_size=1))
    assert not fixed(Uplink(name="r", filter="#", sample=0.5))


def test_it_is_known_which_topics_a_route_could_have_written() -> None:
    route = Uplink(name="r", filter="+/#", topic="iot.{1}.raw")
    assert could_write(route, "iot.k1.raw") and not could_write(route, "iot.k1") and not could_write(route, "x")


def test_a_record_becomes_an_mqtt_message() -> None:
    route = Downlink(name="d", topic="commands", mqtt_topic="cmd/{key}/{header.kind}", qos=1, expiry=60)
    found = outgoing(route, key=b"dev1", value=b"on", headers=[("kind", b"switch")])
    assert found == Outgoing(
        route="d", client_id="dev1", topic="cmd/dev1/switch", payload=b"on", qos=1, retain=False, expiry=60
    )
    assert isinstance(outgoing(route, key=None, value=b"on", headers=[]), Refusal)
    assert isinstance(outgoing(route, key=b"+", value=b"on", headers=[("kind", b"x")]), Refusal)


def test_routes_survive_their_record() -> None:
    uplink = Uplink(name="r", filter="#", schema={"type": "object"}, allow=("a", "b"), headers={"x": "{topic}"})
    downlink = Downlink(name="d", topic="t", mqtt_topic="x")
    assert contract.decode_route(contract.encode(uplink)) == uplink
    assert contract.decode_route(contract.encode(downlink)) == downlink


@settings(deadline=None)
@given(st.text(max_size=40), st.binary(max_size=60))
def test_any_template_and_payload_place_or_refuse_and_nothing_else(template: str, payload: bytes) -> None:
    route = Uplink(name="r", filter="#", key=template)
    if not problems(route):
        assert isinstance(place(route, message(payload=payload)), Placed | Refusal)
