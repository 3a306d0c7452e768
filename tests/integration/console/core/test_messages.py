"""The message explorer against a real broker: every record is found once, wherever one starts and however one pages."""

import re
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from django.test import Client

from console.accounts.permissions import Role
from console.messages.queries import Query, search

COUNT = 137
OLD = {"retention.ms": "-1"}  # records that are years old stay
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def topic(broker: str, unique: str) -> str:
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics([NewTopic(unique, 3, 1, config=OLD)]).values():
        future.result(60)
    producer = Producer({"bootstrap.servers": broker})
    for number in range(COUNT):
        producer.produce(
            unique,
            f'{{"number": {number}, "word": "{"needle" if number % 25 == 0 else "hay"}"}}',
            key=f"key-{number}",
            headers=[("trace", f"h{number}".encode())],
            partition=number % 3,
            timestamp=1_700_000_000_000 + 1000 * number,
        )
    assert producer.flush(60) == 0
    return unique


def numbers(records: object) -> list[int]:
    return [int(re.search(rb'"number": (\d+)', record.value)[1]) for record in records]  # type: ignore[attr-defined,index]


@pytest.mark.parametrize("start", ["newest", "oldest"])
def test_paging_shows_every_record_once_and_in_order(start: str, topic: str, database: None) -> None:
    seen: list[int] = []
    cursor: dict[int, int] = {}
    for _ in range(20):
        found = search(Query(topic=topic, start=start, cursor=cursor, limit=20), 3)
        seen += numbers(found.records)
        cursor = dict(found.cursor)
        if not cursor:
            break
    expected = list(range(COUNT))
    assert seen == (expected[::-1] if start == "newest" else expected)


def test_a_search_finds_what_holds_the_text_and_says_how_much_it_looked_at(topic: str, database: None) -> None:
    found = search(Query(topic=topic, text="NEEDLE", within="value"), 3)
    assert numbers(found.records) == [125, 100, 75, 50, 25, 0]
    assert found.scanned == COUNT
    assert found.complete
    assert numbers(search(Query(topic=topic, text="key-77", within="key"), 3).records) == [77]
    assert numbers(search(Query(topic=topic, text="h13", within="header", start="oldest"), 3).records)[0] == 13
    assert search(Query(topic=topic, text="needle", within="key"), 3).records == []


def test_a_range_that_ends_in_transaction_markers_has_an_end(broker: str, unique: str, database: None) -> None:
    writer = Producer({"bootstrap.servers": broker, "transactional.id": unique})
    writer.init_transactions(20)
    for number in range(6):
        writer.begin_transaction()
        writer.produce(unique, f'{{"number": {number}}}', partition=0)
        if number % 2:
            writer.abort_transaction(20)
        else:
            writer.commit_transaction(20)
    for start in ("oldest", "newest"):
        found = search(Query(topic=unique, start=start), 1)
        assert sorted(numbers(found.records)) == [0, 2, 4]
        assert found.complete


def test_it_starts_at_an_offset_or_a_time(topic: str, database: None) -> None:
    at = search(Query(topic=topic, start="offset", offset=40, partition=0), 3)
    assert numbers(at.records)[0] == 120
    since = search(Query(topic=topic, start="time", since=1_700_000_000_000 + 1000 * 130), 3)
    assert numbers(since.records) == list(range(130, COUNT))


def test_the_page_its_fragment_and_a_permalink(topic: str, signed_in: Callable[..., Client]) -> None:
    client = signed_in(Role.VIEWER)
    page = client.get(f"/topics/{topic}/messages/?q=needle&in=value")
    assert page.status_code == 200
    assert page.content.decode().count("data-drawer") == 6
    part = client.get(f"/topics/{topic}/messages/", headers={"HX-Request": "true", "HX-Target": "found"})
    assert "<html" not in part.content.decode()
    record = client.get(f"/topics/{topic}/messages/1/3/").content.decode()
    assert "key-10" in record
    assert "trace" in record
    assert client.get(f"/topics/{topic}/messages/1/99999/").status_code == 404
    value = client.get(f"/topics/{topic}/messages/1/3/value/")
    assert b'"number": 10' in value.content
    assert "attachment" in value["Content-Disposition"]
    assert value["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("wrong", ["from=never", "partition=x", "cursor=a:b", "from=time", "from=offset&offset=-4"])
def test_an_address_that_is_no_search_says_so(wrong: str, topic: str, signed_in: Callable[..., Client]) -> None:
    assert signed_in(Role.VIEWER).get(f"/topics/{topic}/messages/?{wrong}").status_code == 400


def test_what_devices_send_is_never_markup(broker: str, unique: str, signed_in: Callable[..., Client]) -> None:
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(unique, EVIL, key=EVIL, headers=[(EVIL, EVIL.encode())])
    producer.produce(unique, b"\xff\xfe\x00binary")
    producer.produce(unique, None, key="tombstone")
    assert producer.flush(60) == 0
    client = signed_in(Role.VIEWER)
    pages = [f"/topics/{unique}/messages/", f"/topics/{unique}/", f"/topics/{unique}/messages/0/0/"]
    pages += [f"/topics/{unique}/messages/?q={EVIL}", f"/topics/?q={EVIL}", f"/search/?q={EVIL}"]
    for path in pages:
        content = client.get(path).content.decode()
        assert EVIL not in content, path
    assert client.get(f"/topics/{unique}/messages/0/1/").status_code == 200
