"""What a dead-letter topic's page tells of its letters, from the index."""

from __future__ import annotations

import pytest
from django.db import connection
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
    first, second = queries.errors("dlq.orders").rows
    assert (first.pattern, first.count, first.groups) == ("ValueError: amount … is below … (order …)", 5, ["billing"])
    assert (second.count, second.groups, second.newest) == (2, ["billing", "invoices"], 1006)
    page = as_viewer.get(reverse("console:dlq", args=["dlq.orders"]))
    assert "ValueError: amount … is below" in page.content.decode()
    found = as_viewer.get(reverse("console:dlq", args=["dlq.orders"]), {"q": first.words})
    assert found.context["list"].page.paginator.count == 5
    assert queries.of_group("billing") == [("dlq.orders", 6)]


def test_a_number_with_a_point_or_a_colon_is_one_number(db: None) -> None:
    letters([("no answer from 10.0.0.7:80 within 5.0 s", ""), ("no answer from 10.0.0.12:8080 within 2.5 s", "")])
    (only,) = queries.errors("dlq.orders").rows
    assert (only.pattern, only.count) == ("no answer from … within … s", 2)


def test_errors_are_looked_for_in_so_many_letters_and_the_page_says_so(
    db: None, as_viewer: Client, no_broker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "ERRORS_OF", 3)
    letters([("old trouble", ""), *[("new trouble", "")] * 3])
    found = queries.errors("dlq.orders")
    assert ([row.pattern for row in found.rows], found.looked_at, found.more) == (["new trouble"], 3, True)
    assert "of the newest 3 open letters" in as_viewer.get(reverse("console:dlq", args=["dlq.orders"])).content.decode()
    monkeypatch.setattr(queries, "ERRORS_OF", 4)
    assert not queries.errors("dlq.orders").more


@pytest.mark.skipif(connection.vendor != "sqlite", reason="asks SQLite for its plan")
def test_neither_the_newest_letters_nor_a_groups_are_sorted_out_of_all(db: None) -> None:
    newest = Letter.objects.filter(topic="t", state=Letter.State.OPEN).order_by("-at", "-id")
    assert "TEMP B-TREE" not in newest[:50].explain()
    of_group = Letter.objects.filter(group="g", state=Letter.State.OPEN).order_by().values("topic")
    assert "COVERING INDEX" in of_group.explain()
