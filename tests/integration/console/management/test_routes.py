"""Routes: validated by the gateway's code when written, tried by the same, and published for gateways."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from console.accounts.models import User
from console.accounts.permissions import PermissionRefused
from console.audit.models import Entry
from console.routes import actions
from console.routes.models import Route
from gateway import contract
from gateway.routes import Downlink, Uplink

from .conftest import Broker

UPLINK = {
    "filter": "site/+/+/state",
    "topic": "telemetry.{1}",
    "key": "{2}",
    "priority": "10",
    "enabled": "on",
    "headers": "kind={payload.kind}",
    "json_only": "on",
    "expired": "dead-letter",
}


def named(text: str) -> str:
    return f"{text}-{uuid.uuid4().hex[:8]}"


def test_a_route_is_written_tried_published_and_deleted(
    broker: Broker,
    as_admin: Client,
    as_viewer: Client,
    newest: Callable[[str], dict[bytes, bytes | None]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    name = named("states")
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_admin.post(reverse("console:route-create-uplink"), {**UPLINK, "name": name})
    assert answer.status_code == 302
    record = newest(contract.ROUTES)[name.encode()]
    assert record is not None
    assert contract.decode_route(record) == Route.objects.get(name=name).record()
    assert contract.decode_route(record).expired == "dead-letter"
    page = as_viewer.get(reverse("console:route", args=[name])).content.decode()
    for shown in ("Messages that expire", "Go to the dead letters", "JSON payloads only", "kind={payload.kind}"):
        assert shown in page
    message = {"topic": "site/a/p7/state", "client_id": "p7", "payload": '{"kind": "pump"}'}
    placed = as_viewer.post(reverse("console:route-try"), message).context["up"].placed
    assert (placed.topic, placed.key, placed.headers) == ("telemetry.a", b"p7", (("kind", "pump"),))
    refused = as_viewer.post(reverse("console:route-try"), {**message, "payload": "not json"}).context["up"].refusal
    assert (refused.route, refused.reason) == (name, "json")
    other = as_viewer.post(reverse("console:route-try"), {**message, "topic": "elsewhere"}).context["up"]
    assert (other.default, other.placed.topic) == (True, "mqtt.messages")
    with django_capture_on_commit_callbacks(execute=True):
        as_admin.post(reverse("console:route-disable", args=[name]))
    assert as_viewer.post(reverse("console:route-try"), message).context["up"].default
    record = newest(contract.ROUTES)[name.encode()]
    assert record is not None
    assert not contract.decode_route(record).enabled
    with django_capture_on_commit_callbacks(execute=True):
        as_admin.post(reverse("console:route-delete", args=[name]), {"typed": name})
    assert newest(contract.ROUTES)[name.encode()] is None
    changes = list(Entry.objects.filter(kind="route", name=name).order_by("id").values_list("action", flat=True))
    assert changes == ["route.create", "route.disable", "route.delete"]


def test_what_the_gateway_would_leave_out_is_refused_beside_its_field(
    db: None, as_admin: Client, no_broker: None
) -> None:
    for changes, field in (
        ({"filter": "a/#/b"}, "filter"),
        ({"topic": "t.{3}"}, "topic"),
        ({"topic": "{1}"}, "topic"),
        ({"key": "{nothing}"}, "key"),
        ({"headers": "x={wrong}"}, "headers"),
        ({"schema": "[1]"}, "schema"),
        ({"schema": '{"type": 7}'}, "schema"),
    ):
        answer = as_admin.post(reverse("console:route-create-uplink"), {**UPLINK, "name": "r", **changes})
        assert answer.status_code == 422, changes
        assert field in answer.context["form"].errors, changes
    assert not Route.objects.exists()


def test_a_downlink_is_tried_by_the_same_function(db: None, admin: User, as_viewer: Client, no_broker: None) -> None:
    record = Downlink(name="commands", topic="commands", mqtt_topic="cmd/{key}")
    actions.create(actor=admin, record=record)
    asked = {"direction": "down", "topic": "commands", "key": "p7", "payload": "on"}
    made = as_viewer.post(reverse("console:route-try"), asked).context["outgoing"]
    assert [(one.client_id, one.topic) for one in made] == [("p7", "cmd/p7")]
    assert as_viewer.post(reverse("console:route-try"), {**asked, "topic": "x"}).context["outgoing"] == []


def test_only_administrators_write_routes(db: None, operator: User, as_operator: Client, no_broker: None) -> None:
    with pytest.raises(PermissionRefused):
        actions.create(actor=operator, record=Uplink(name="r", filter="#"))
    assert as_operator.post(reverse("console:route-create-uplink"), {**UPLINK, "name": "r"}).status_code == 403


def test_hostile_content_is_shown_as_text(db: None, as_admin: Client, admin: User, no_broker: None) -> None:
    actions.create(actor=admin, record=Uplink(name="r", filter="<script>/#"), note="<b>note</b>")
    evil = {"topic": "<script>/x", "client_id": "<img src=x>", "payload": "<script>alert(1)</script>"}
    pages = [
        as_admin.get(reverse("console:route-list")),
        as_admin.get(reverse("console:route", args=["r"])),
        as_admin.post(reverse("console:route-try"), evil),
    ]
    for page in pages:
        text = page.content.decode()
        assert "<script>/" not in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "<b>note" not in text
