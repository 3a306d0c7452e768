"""Topics, through the pages, against a real broker; what is there is asked of an independent client."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource
from django.test import Client

from console import snapshot
from console.accounts.permissions import Role
from console.audit.models import Entry, Intent
from console.audit.verify import verify
from tests.integration.console.core.conftest import eventually


@pytest.fixture
def admin(broker: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker})


def created(client: Client, name: str, **fields: Any) -> Any:
    return client.post("/topics/create/", {"name": name, "partitions": 2, "cleanup": "delete", **fields})


def write(broker: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": broker})
    for number in range(count):
        producer.produce(topic, f'{{"n": {number}}}', key=str(number))
    assert producer.flush(60) == 0


def config(admin: AdminClient, topic: str, key: str) -> str:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return str(next(iter(admin.describe_configs([resource]).values())).result(60)[key].value)


def test_a_topic_is_created_and_shown_at_once(
    signed_in: Callable[..., Client], admin: AdminClient, unique: str
) -> None:
    client = signed_in(Role.OPERATOR)
    answer = created(client, unique, keep=2, keep_unit="h", keep_bytes=5)
    assert answer.status_code == 302
    assert answer["Location"] == f"/topics/{unique}/"
    assert len(admin.list_topics(timeout=60).topics[unique].partitions) == 2
    assert config(admin, unique, "retention.ms") == str(2 * 3600 * 1000)
    assert config(admin, unique, "retention.bytes") == str(5 * 1024 * 1024)
    assert unique in client.get(f"/topics/?q={unique}").content.decode()
    entry = Entry.objects.get(action="topic.create")
    assert (entry.outcome, entry.name, entry.before, entry.after["partitions"]) == ("done", unique, None, 2)


def test_what_the_broker_refuses_is_said_in_the_form_and_recorded_as_failed(
    signed_in: Callable[..., Client], broker: str, unique: str
) -> None:
    client = signed_in()
    assert created(client, unique).status_code == 302
    again = created(client, unique)
    assert again.status_code == 422
    assert "error" in again.content.decode()
    assert [entry.outcome for entry in Entry.objects.order_by("id")] == ["done", "failed"]
    assert Intent.objects.count() == 0
    assert verify().reason == ""


def test_names_that_are_sluices_own_are_refused(signed_in: Callable[..., Client], broker: str) -> None:
    assert created(signed_in(), "__sluice_devices").status_code == 422
    assert Entry.objects.count() == 0


def test_configuration_changes_are_recorded_before_and_after(
    signed_in: Callable[..., Client], admin: AdminClient, unique: str
) -> None:
    client = signed_in(Role.OPERATOR)
    created(client, unique, keep=1, keep_unit="h")
    answer = client.post(f"/topics/{unique}/configure/", {"key": "retention.ms", "value": "7200000"})
    assert answer.status_code == 302, answer.content
    assert config(admin, unique, "retention.ms") == "7200000"
    entry = Entry.objects.get(action="topic.configure")
    assert (entry.before, entry.after) == ({"retention.ms": "3600000"}, {"retention.ms": "7200000"})
    nothing = client.post(f"/topics/{unique}/configure/", {"key": "retention.ms", "value": "7200000"})
    assert nothing.status_code == 422
    client.post(f"/topics/{unique}/configure/", {"key": "retention.ms", "reset": "1"})
    assert config(admin, unique, "retention.ms") != "7200000"
    wrong = client.post(f"/topics/{unique}/configure/", {"key": "retention.ms", "value": "soon"})
    assert wrong.status_code == 422
    assert client.get(f"/topics/{unique}/settings/").status_code == 200


def test_partitions_are_added_and_never_taken_away(
    signed_in: Callable[..., Client], admin: AdminClient, unique: str
) -> None:
    client = signed_in(Role.OPERATOR)
    created(client, unique)
    assert client.post(f"/topics/{unique}/add-partitions/", {"total": 5}).status_code == 302
    eventually(lambda: len(admin.list_topics(timeout=60).topics[unique].partitions) == 5)
    assert client.post(f"/topics/{unique}/add-partitions/", {"total": 2}).status_code == 422


def test_purging_needs_the_name_and_deletes_what_is_there(
    signed_in: Callable[..., Client], broker: str, unique: str
) -> None:
    client = signed_in()
    created(client, unique)
    write(broker, unique, 30)
    assert client.post(f"/topics/{unique}/purge/", {"typed": "something"}).status_code == 422
    assert client.post(f"/topics/{unique}/purge/", {"typed": unique}).status_code == 302
    reader = Consumer({"bootstrap.servers": broker, "group.id": unique})
    marks = [reader.get_watermark_offsets(TopicPartition(unique, index), 10) for index in range(2)]
    reader.close()
    assert [low for low, _ in marks] == [high for _, high in marks]
    assert sum(high for _, high in marks) == 30


def test_deleting_needs_the_name_and_the_role(
    signed_in: Callable[..., Client], admin: AdminClient, unique: str
) -> None:
    client = signed_in()
    created(client, unique)
    assert signed_in(Role.OPERATOR).post(f"/topics/{unique}/delete/", {"typed": unique}).status_code == 403
    assert client.post(f"/topics/{unique}/delete/", {"typed": ""}).status_code == 422
    assert unique in admin.list_topics(timeout=60).topics
    assert client.post(f"/topics/{unique}/delete/", {"typed": unique}).status_code == 302
    eventually(lambda: unique not in admin.list_topics(timeout=60).topics)
    assert unique not in snapshot.current().topics


def test_a_topics_page_shows_partitions_and_newest_messages(
    signed_in: Callable[..., Client], broker: str, unique: str
) -> None:
    client = signed_in(Role.VIEWER)
    created(signed_in(), unique)
    write(broker, unique, 12)
    page = client.get(f"/topics/{unique}/").content.decode()
    assert "&quot;n&quot;: 11" in page
    assert "First offset" in page
    assert client.get("/topics/there-is-none/").status_code == 404
