"""Consumer groups: where they are, and moving them, against a real broker."""

import re
import time
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from django.test import Client

from console import snapshot
from console.accounts.permissions import Role
from console.audit.models import Entry
from console.snapshot import Group, Picture, held

COUNT = 20
OLD = {"retention.ms": "-1"}  # records that are years old stay


@pytest.fixture
def group(broker: str, unique: str) -> str:
    """A group that read 5 of 20 records of a topic of its own name, one partition, and left."""
    admin = AdminClient({"bootstrap.servers": broker})
    for future in admin.create_topics([NewTopic(unique, 1, 1, config=OLD)]).values():
        future.result(60)
    producer = Producer({"bootstrap.servers": broker})
    for number in range(COUNT):
        producer.produce(unique, str(number), partition=0, timestamp=1_700_000_000_000 + 1000 * number)
    assert producer.flush(60) == 0
    reader = Consumer({"bootstrap.servers": broker, "group.id": unique, "enable.auto.commit": False})
    reader.commit(offsets=[TopicPartition(unique, 0, 5)], asynchronous=False)
    reader.close()
    held.replace_with(
        Picture(at=int(time.time() * 1000), groups={unique: Group(name=unique, topics=(unique,), members=0, lag=15)})
    )
    return unique


def committed(broker: str, group: str) -> int:
    admin = AdminClient({"bootstrap.servers": broker})
    (future,) = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    (place,) = future.result(60).topic_partitions
    return int(place.offset)


def test_a_groups_page_shows_what_an_independent_client_computes(signed_in: Callable[..., Client], group: str) -> None:
    page = signed_in(Role.VIEWER).get(f"/groups/{group}/").content.decode()
    row = page[page.index('id="positions-title"') :].split("</table>")[0]
    cells = [re.sub("<[^>]*>", "", part.rpartition("<td")[2].partition(">")[2]).strip() for part in row.split("</td>")]
    assert cells[:4] == ["0", "5", "20", "15"]


@pytest.mark.parametrize(
    ("fields", "offset"),
    [
        ({"target": "earliest"}, 0),
        ({"target": "latest"}, 20),
        ({"target": "shift", "shift": "4"}, 9),
        ({"target": "shift", "shift": "-3"}, 2),
        ({"target": "shift", "shift": "1000"}, 20),
        ({"target": "time", "since": "2023-11-14T22:13:27"}, 7),
        ({"target": "time", "since": "2037-01-01T00:00:00"}, 20),
    ],
)
def test_offsets_move_where_the_preview_said(
    fields: dict[str, str], offset: int, signed_in: Callable[..., Client], broker: str, group: str
) -> None:
    client = signed_in(Role.OPERATOR)
    preview = client.post(f"/groups/{group}/reset/", {"topics": group, **fields})
    assert preview.status_code == 200
    assert f'<td class="num strong">{offset}</td>' in preview.content.decode()
    assert committed(broker, group) == 5
    assert Entry.objects.count() == 0
    done = client.post(f"/groups/{group}/reset/", {"topics": group, "sure": "1", **fields})
    assert done.status_code == 302, done.content.decode()
    assert committed(broker, group) == offset
    entry = Entry.objects.get()
    assert (entry.action, entry.before, entry.after) == ("group.reset", {f"{group}/0": 5}, {f"{group}/0": offset})


def test_a_group_with_members_is_not_moved(signed_in: Callable[..., Client], broker: str, group: str) -> None:
    reader = Consumer({"bootstrap.servers": broker, "group.id": group, "enable.auto.commit": False})
    reader.subscribe([group])
    deadline = time.monotonic() + 60
    while not reader.assignment() and time.monotonic() < deadline:
        reader.poll(0.2)
    try:
        answer = signed_in().post(f"/groups/{group}/reset/", {"topics": group, "target": "latest", "sure": "1"})
        assert answer.status_code == 422
        assert "has members" in answer.content.decode()
        assert committed(broker, group) == 5
        assert Entry.objects.get().outcome == "failed"
        refused = signed_in().post(f"/groups/{group}/delete/", {"typed": group})
        assert refused.status_code == 422
    finally:
        reader.close()


def test_an_empty_group_is_deleted_by_typing_its_name(
    signed_in: Callable[..., Client], broker: str, group: str
) -> None:
    client = signed_in()
    assert client.post(f"/groups/{group}/delete/", {"typed": "x"}).status_code == 422
    assert client.post(f"/groups/{group}/delete/", {"typed": group}).status_code == 302
    admin = AdminClient({"bootstrap.servers": broker})
    assert group not in {one.group_id for one in admin.list_consumer_groups().result(60).valid}
    assert group not in snapshot.current().groups
