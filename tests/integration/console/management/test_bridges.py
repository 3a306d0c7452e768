"""Bridges: validated by the bridge's own code, published for the bridge process, their passwords never to be seen."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from console.accounts.models import User
from console.accounts.permissions import PermissionRefused
from console.audit.models import Entry
from console.bridges import actions
from console.bridges.models import Bridge
from console.snapshot import Picture, held
from gateway import contract
from gateway.bridges import Bridge as Record
from gateway.sealing import load_key, unseal

from .conftest import Broker

FORM = {
    "address": "mqtts://broker.example:8883",
    "client_id": "site-1",
    "username": "site",
    "password": "hunter2 hunter2",
    "inbound": "commands/#\r\nsettings/+",
    "local_prefix": "upstream/",
    "outbound": "plant/#",
    "remote_prefix": "site1/",
    "qos": "1",
    "keep_alive": "60",
    "enabled": "on",
}
SECRET = FORM["password"]


def named() -> str:
    return f"bridge-{uuid.uuid4().hex[:8]}"


def opened(record: Record) -> str:
    return unseal(record.password, load_key(settings.SLUICE.data), record.context)


def test_a_bridge_is_written_published_changed_and_deleted_and_nobody_sees_its_password(
    broker: Broker,
    as_admin: Client,
    as_viewer: Client,
    newest: Callable[[str], dict[bytes, bytes | None]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    name = named()
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_admin.post(reverse("console:bridge-create"), {**FORM, "name": name})
    assert answer.status_code == 302, answer.context["form"].errors
    value = newest(contract.BRIDGES)[name.encode()]
    assert value is not None and SECRET.encode() not in value
    record = contract.decode(Record, value)
    assert record == Bridge.objects.get(name=name).record()
    assert (record.inbound, record.outbound, opened(record)) == (("commands/#", "settings/+"), ("plant/#",), SECRET)
    assert record.since > 1e9
    pages = [reverse("console:bridge-list"), reverse("console:bridge", args=[name])]
    for client, addresses in ((as_viewer, pages), (as_admin, [*pages, reverse("console:bridge-edit", args=[name])])):
        for address in addresses:
            page = client.get(address).content.decode()
            assert name in page
            assert SECRET not in page
            assert record.password not in page
    edited = reverse("console:bridge-edit", args=[name])
    with django_capture_on_commit_callbacks(execute=True):
        assert as_admin.post(edited, {**FORM, "password": "", "outbound": "plant/+/x"}).status_code == 302
    changed = Bridge.objects.get(name=name).record()
    assert (changed.outbound, opened(changed), changed.since) == (("plant/+/x",), SECRET, record.since)
    elsewhere = {**FORM, "password": "", "address": "mqtts://somewhere.else:8883"}
    answer = as_admin.post(edited, elsewhere)
    assert answer.status_code == 422
    assert "password" in answer.context["form"].errors, "a kept password is not sent to another address"
    with django_capture_on_commit_callbacks(execute=True):
        as_admin.post(reverse("console:bridge-disable", args=[name]))
        as_admin.post(reverse("console:bridge-delete", args=[name]), {"typed": name})
    assert newest(contract.BRIDGES)[name.encode()] is None
    entries = list(Entry.objects.filter(kind="bridge", name=name).order_by("id"))
    assert [each.action for each in entries] == ["bridge.create", "bridge.edit", "bridge.disable", "bridge.delete"]
    told = "".join(f"{each.before}{each.after}" for each in entries)
    assert SECRET not in told
    assert record.password not in told


def test_what_could_not_work_is_refused_beside_its_field(db: None, as_admin: Client, no_broker: None) -> None:
    for changes, field in (
        ({"address": "http://x"}, "address"),
        ({"address": "mqtt://user:word@host"}, "address"),
        ({"inbound": "a/#/b"}, "inbound"),
        ({"inbound": "", "outbound": ""}, "inbound"),
        ({"outbound": "$SYS/#"}, "outbound"),
        ({"local_prefix": "no-slash"}, "local_prefix"),
        ({"remote_prefix": "", "inbound": "plant/+"}, "outbound"),
        ({"username": ""}, "username"),
        ({"ca": "x", "address": "mqtt://host"}, "ca"),
        ({"keep_alive": "1"}, "keep_alive"),
    ):
        answer = as_admin.post(reverse("console:bridge-create"), {**FORM, "name": "b", **changes})
        assert answer.status_code == 422, changes
        assert field in answer.context["form"].errors, (changes, answer.context["form"].errors)
    assert not Bridge.objects.exists()


def test_pages_show_how_the_bridge_process_says_it_is_doing(
    db: None, admin: User, as_viewer: Client, no_broker: None
) -> None:
    record = Record(name="up", address="mqtt://host", client_id="c", inbound=("a",))
    actions.create(actor=admin, record=record)
    page = as_viewer.get(reverse("console:bridge", args=["up"])).content.decode()
    assert "not heard of" in page
    state = {"state": "failing", "error": "<no route>", "error_at": 1, "since": 1, "in": 0.5, "lag": 7, "received": 3}
    held.replace_with(Picture(at=1, traffic={"bridge/up": state}))
    try:
        for address in (reverse("console:bridge", args=["up"]), reverse("console:bridge-list")):
            page = as_viewer.get(address).content.decode()
            assert "trying again" in page
            assert 'data-live="bridge/up/lag"' in page
            assert "<no route>" not in page
    finally:
        held.replace_with(Picture())


def test_only_who_may_manage_bridges_changes_them(
    db: None, operator: User, as_operator: Client, no_broker: None
) -> None:
    with pytest.raises(PermissionRefused):
        actions.create(actor=operator, record=Record(name="b", address="mqtt://h", client_id="c", inbound=("a",)))
    assert as_operator.get(reverse("console:bridge-create")).status_code == 403
    assert not Bridge.objects.exists()
