"""Quotas as the console manages them, against a real broker."""

from __future__ import annotations

import uuid

import pytest
from django.test import Client
from django.urls import reverse

from console import kafka
from console.accounts.models import User
from console.accounts.permissions import PermissionRefused
from console.audit.models import Entry
from console.kafka import types
from console.quotas import actions

from .conftest import Broker

HTMX = {"HX-Request": "true"}


def named(text: str) -> str:
    return f"{text}-{uuid.uuid4().hex[:8]}"


def limits(entity: types.QuotaEntity) -> dict[str, float] | None:
    return next((dict(quota.limits) for quota in kafka.admin().quotas() if quota.entity == entity), None)


def test_a_quota_is_set_changed_and_removed_and_everything_of_it_is_on_record(
    broker: Broker, as_admin: Client, as_operator: Client
) -> None:
    user = named("batch")
    entity = types.QuotaEntity(user=user, client_id="")
    put = reverse("console:quota-set")
    answer = as_admin.post(put, {"user": user, "client_id": "*", "producer_byte_rate": "1048576"}, headers=HTMX)
    assert answer.status_code == 204
    assert limits(entity) == {"producer_byte_rate": 1048576.0}
    page = as_operator.get(reverse("console:quota-list"), {"q": user}).content.decode()
    assert "1.0 MiB/s" in page
    assert "every other" in page
    form = as_admin.get(put, {"user": user, "client_id": "*"}).content.decode()
    assert "1048576" in form
    as_admin.post(f"{put}?user={user}&client_id=*", {"consumer_byte_rate": "2000", "request_percentage": "50"})
    assert limits(entity) == {"consumer_byte_rate": 2000.0, "request_percentage": 50.0}
    as_admin.post(f"{reverse('console:quota-remove')}?user={user}&client_id=*")
    assert limits(entity) is None
    entries = Entry.objects.filter(kind="quota", name__contains=user).order_by("id")
    assert [entry.action for entry in entries] == ["quota.set", "quota.set", "quota.remove"]
    assert {entry.name for entry in entries} == {f"user={user} client_id=*"}, "in no language of whoever did it"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"producer_byte_rate": "1"}, "__all__"),
        ({"user": "u"}, "__all__"),
        ({"user": "u", "ip": "10.0.0.1", "producer_byte_rate": "1"}, "ip"),
        ({"ip": "ten", "connection_creation_rate": "1"}, "ip"),
        ({"ip": "10.0.0.1", "producer_byte_rate": "1"}, "producer_byte_rate"),
        ({"user": "u", "connection_creation_rate": "1"}, "connection_creation_rate"),
        ({"user": "u", "producer_byte_rate": "0"}, "producer_byte_rate"),
        ({"user": "__gateway", "producer_byte_rate": "1"}, "__all__"),
    ],
)
def test_what_would_mean_nothing_is_refused_beside_its_field(
    fields: dict[str, str], wrong: str, broker: Broker, as_admin: Client
) -> None:
    answer = as_admin.post(reverse("console:quota-set"), fields, headers=HTMX)
    assert answer.status_code == 422
    assert wrong in answer.context["form"].errors


def test_a_broker_that_does_not_tell_its_quotas_has_not_none_and_no_form_would_end_them(
    as_admin: Client, no_broker: None
) -> None:
    page = as_admin.get(reverse("console:quota-list")).content.decode()
    assert "Not known now" in page
    assert "No quotas" not in page
    answer = as_admin.get(reverse("console:quota-set"), {"user": "u"}, headers=HTMX)
    assert answer.status_code == 503
    for view in ("console:user-list", "console:acl-list"):
        assert "Not known now" in as_admin.get(reverse(view)).content.decode()


def test_sluices_own_users_have_no_quotas_to_remove(broker: Broker, as_admin: Client) -> None:
    assert as_admin.post(f"{reverse('console:quota-remove')}?user=__gateway").status_code == 404


def test_who_may_only_look_can_change_nothing(broker: Broker, operator: User, as_viewer: Client) -> None:
    entity = types.QuotaEntity(user=named("x"))
    with pytest.raises(PermissionRefused):
        actions.put(actor=operator, entity=entity, wanted={"producer_byte_rate": 1.0})
    with pytest.raises(PermissionRefused):
        actions.remove(actor=operator, entity=entity)
    assert as_viewer.get(reverse("console:quota-list")).status_code == 403
