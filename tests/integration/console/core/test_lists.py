"""Lists at size: served from the picture, paged, filtered, and without a single broker call."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from console import kafka
from console.accounts.permissions import Role
from console.snapshot import Group, Picture, Topic, Totals, held

HTMX = {"HX-Request": "true", "HX-Target": "topics-body"}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    topics = {
        f"topic-{n:05}": Topic(
            name=f"topic-{n:05}", partitions=8, messages=n * 10, size=n * 1000, in_rate=n / 7, lag=None if n % 2 else n
        )
        for n in range(5000)
    }
    topics["__sluice_devices"] = Topic(name="__sluice_devices", partitions=1)
    topics["=cmd"] = Topic(name="=cmd", partitions=1)
    groups = {
        f"group-{n:05}": Group(name=f"group-{n:05}", lag=n, topics=(f"topic-{n % 5000:05}",)) for n in range(15000)
    }
    held.replace_with(Picture(at=int(time.time() * 1000), topics=topics, groups=groups, totals=Totals(lag=5)))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a list called the broker")

    for name in ("admin", "producer", "consumer", "settings", "send"):
        monkeypatch.setattr(kafka, name, refuse)


@pytest.mark.usefixtures("large")
def test_a_page_of_a_large_list_is_small_and_calls_no_broker(signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)
    for path in ("/", "/topics/", "/groups/", "/topics/?sort=-in&page=7", "/search/?q=topic-00"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) <= 100_000, path
    page = client.get("/topics/").content.decode()
    assert page.count("<tr data-href") == 50
    assert "__sluice_devices" not in page
    assert "1–50 of 5,001" in page


@pytest.mark.usefixtures("large")
def test_search_sort_filter_and_paging_are_the_servers(signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)

    def names(query: str) -> list[str]:
        content = client.get(f"/topics/?{query}").content.decode()
        return [part.split('"')[0] for part in content.split('data-row="topic/')[1:]]

    assert names("q=TOPIC+0123") == ["topic-00123", *(f"topic-0123{n}" for n in range(10))]
    assert names("sort=-messages")[0] == "topic-04999"
    assert names("sort=-lag")[0] == "topic-04998"
    assert names("sort=lag")[:2] == ["topic-00000", "topic-00002"]
    assert "__sluice_devices" in names("kind=all")
    assert names("page=2")[0] != names("")[0]
    assert names("page=99999")
    assert names("sort=nonsense") == names("")
    assert names("q=no-such-topic") == []


@pytest.mark.usefixtures("large")
def test_rows_whose_value_is_unknown_come_last_either_way(signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)
    for direction in ("lag", "-lag"):
        last = client.get(f"/topics/?sort={direction}&page=101").content.decode()
        assert '/lag" data-as="num">–<' in last


@pytest.mark.usefixtures("large")
def test_a_fragment_is_the_pages_own_and_csv_is_the_whole_filtered_set(signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)
    fragment = client.get("/topics/?q=0123", headers=HTMX).content.decode()
    assert "<html" not in fragment
    assert fragment.strip() in client.get("/topics/?q=0123").content.decode()
    csv = b"".join(client.get("/topics/?q=topic-012&format=csv")).decode("utf-8-sig").splitlines()
    assert csv[0].startswith("Name,Partitions,Messages")
    assert len(csv) == 101
    everything = b"".join(client.get("/topics/?format=csv")).decode()
    assert "\n'=cmd," in everything.replace("\r", "")


def test_an_empty_list_says_why(signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)
    assert "No sample from the broker yet" in client.get("/topics/").content.decode()
    held.replace_with(Picture(at=int(time.time() * 1000)))
    assert "No topics yet" in client.get("/topics/").content.decode()
    assert "Nothing matches" in client.get("/topics/?q=zzz").content.decode()
