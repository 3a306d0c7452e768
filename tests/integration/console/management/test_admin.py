"""Django admin: for administrators, to look and to act by the slices' actions, and nothing else."""

from __future__ import annotations

import pytest
from django.contrib import admin as site
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console.accounts.models import User
from console.admin import ReadMostly
from console.audit.models import Entry
from console.devices import presence
from console.devices.models import Ban, Device
from console.jobs.models import Job
from console.outbox.models import Pending
from console.policies.models import Policy
from console.routes import actions as routes
from gateway import contract
from gateway.routes import Uplink

OURS = [model for model, shown in site.site._registry.items() if isinstance(shown, ReadMostly)]


@pytest.fixture
def objects(db: None, admin: User, no_broker: None) -> None:
    Device.objects.create(name="pump", credentials=[{"kind": "blake2b", "hash": "the-hash", "salt": "00"}])
    Ban.objects.create(kind="client", value="x", by="the-admin")
    Policy.objects.create(name="p")
    routes.create(actor=admin, record=Uplink(name="r", filter="#"))
    Job.objects.create(kind="redrive", title="t", actor_name="a", created=timezone.now())
    presence.keep({"c": contract.Presence(client_id="c", online=True, since=1.0, gateway="g")})


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.__name__)
def test_lists_and_objects_are_shown_and_can_t_be_edited(objects: None, as_admin: Client, model: type) -> None:
    names = f"{model._meta.app_label}_{model._meta.model_name}"  # type: ignore[attr-defined]  # a model
    assert as_admin.get(reverse(f"admin:{names}_changelist"), {"q": "p"}).status_code == 200
    assert as_admin.get(reverse(f"admin:{names}_add")).status_code == 403
    row = model.objects.first()  # type: ignore[attr-defined]  # a model
    if row is not None:
        page = as_admin.get(reverse(f"admin:{names}_change", args=[row.pk]))
        assert page.status_code == 200
        assert b"the-hash" not in page.content
        assert as_admin.post(reverse(f"admin:{names}_change", args=[row.pk]), {"name": "z"}).status_code == 403
        assert as_admin.post(reverse(f"admin:{names}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


def test_only_administrators_come_in(db: None, as_operator: Client, as_viewer: Client) -> None:
    for client in (as_operator, as_viewer):
        assert client.get(reverse("admin:index")).status_code == 302
        assert client.get(reverse("admin:devices_device_changelist")).status_code == 302


def test_an_action_is_the_slice_s_own_with_its_record_and_audit_entry(objects: None, as_admin: Client) -> None:
    device = Device.objects.get(name="pump")
    form = {"action": "disable", "_selected_action": [device.pk]}
    as_admin.post(reverse("admin:devices_device_changelist"), form)
    device.refresh_from_db()
    assert not device.enabled
    entry = Entry.objects.get(action="device.disable")
    assert (entry.actor, entry.name, entry.outcome) == ("the-admin", "pump", "done")
    assert Pending.objects.filter(topic=contract.DEVICES, key="pump").exists()


def test_an_administrator_can_t_disable_themselves_there_either(db: None, admin: User, as_admin: Client) -> None:
    as_admin.post(reverse("admin:accounts_user_changelist"), {"action": "disable", "_selected_action": [admin.pk]})
    admin.refresh_from_db()
    assert admin.is_active
