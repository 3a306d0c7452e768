"""The rows of topics and groups that Django admin shows follow the monitor's picture."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from console import snapshot
from console.inventory.keeping import Inventory
from console.inventory.models import Group, Topic


def test_rows_follow_the_picture(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.inventory.keeping.SECONDS", 0.0)
    Topic.objects.create(name="of-an-earlier-monitor")
    inventory = Inventory()
    orders = snapshot.Topic(name="orders", partitions=3, messages=10)
    billing = snapshot.Group(name="billing", state="Stable", topics=("orders",), lag=4)
    inventory.keep(snapshot.Picture(at=1, topics={"orders": orders}, groups={"billing": billing}))
    assert list(Topic.objects.values_list("name", "partitions", "messages", "lag")) == [("orders", 3, 10, None)]
    assert list(Group.objects.values_list("name", "state", "topics", "lag")) == [("billing", "Stable", "orders", 4)]
    more = snapshot.Topic(name="orders", partitions=3, messages=12, lag=1)
    inventory.keep(snapshot.Picture(at=2, topics={"orders": more}))
    assert list(Topic.objects.values_list("messages", "lag")) == [(12, 1)]
    assert not Group.objects.exists()


def test_django_admin_acts_on_them_by_the_slices_actions(db: None, as_admin: Client, no_broker: None) -> None:
    row = Topic.objects.create(name="__sluice_metrics")
    form = {"action": "purge", "_selected_action": [row.pk]}
    page = as_admin.post(reverse("admin:inventory_topic_changelist"), form, follow=True).content.decode()
    assert "Sluice&#x27;s own" in page
