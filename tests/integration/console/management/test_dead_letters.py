"""What a dead-letter topic's page tells of its letters, from the index."""

from __future__ import annotations

from django.test import Client
from django.urls import reverse

from console.deadletters import queries
from console.deadletters.models import Letter


def letters(details: list[tuple[str, str]], **other: object) -> None:
    for offset, (detail, group) in enumerate(details):
        fields = {"topic": "dlq.orders", "topic_id": "t", "partition": 0, "size": 1, "reason": "handler"}
        Letter.objects.create(**{**fields, **other}, offset=offset, at=1000 + offset, detail=detail, group=group)


def test_letters_alike_but_for_numbers_are_one_error_whose_link_finds_them(
    db: None, as_viewer: Client, no_broker: None
) -> None:
    told = [(f"ValueError: amount {n} is below 1 (order {n * 7})", "billing") for n in range(5)]
    letters([*told, ("KeyError: 'customer'", "invoices"), ("KeyError: 'customer'", "billing"), ("", "x")])
    letters([("long solved", "x")], topic_id="u", state=Letter.State.DISCARDED)
    first, second = queries.errors("dlq.orders")
    assert (first.pattern, first.count, first.groups) == ("ValueError: amount … is below … (order …)", 5, ["billing"])
    assert (second.count, second.groups, second.newest) == (2, ["billing", "invoices"], 1006)
    page = as_viewer.get(reverse("console:dlq", args=["dlq.orders"]))
    assert "ValueError: amount … is below" in page.content.decode()
    found = as_viewer.get(reverse("console:dlq", args=["dlq.orders"]), {"q": first.words})
    assert found.context["selected"] == 5
    assert queries.of_group("billing") == [("dlq.orders", 6)]
