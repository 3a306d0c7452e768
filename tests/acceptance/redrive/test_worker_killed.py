"""A worker killed -9 in the middle of a redrive: the job goes on, each letter arrives once, nothing else moves."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.running_product import Product, running_product

LETTERS = 3_000
OTHERS = 200
START = """
from console.accounts.models import User
from console.deadletters import actions, queries
job = actions.start_redrive(
    actor=User.objects.get(username="admin"), topic="dlq.orders", reason="handler", text="", per_second=1500
)
print("job", job.pk, job.total)
"""
STATE = """
import json
from console.jobs.models import Job
from console.deadletters.models import Letter
from django.db.models import Count
job = Job.objects.get(pk="{job}")
states = dict(Letter.objects.order_by().values_list("state").annotate(Count("id")))
print("STATE", json.dumps([job.state, job.done, job.failed, job.attempts, job.message, states]))
"""
COUNT = """
from console.deadletters.models import Letter
print("COUNT", Letter.objects.count())
"""


@pytest.fixture
def product() -> Iterator[Product]:
    with running_product() as started:
        yield started


def shell(product: Product, code: str, mark: str) -> str:
    answer = product.manage("shell", "-c", code)
    for line in answer.stdout.splitlines():
        if line.startswith(mark):
            return line.removeprefix(mark).strip()
    raise AssertionError(answer.stdout + answer.stderr)


def fill(product: Product) -> None:
    admin = AdminClient({"bootstrap.servers": product.kafka})
    for future in admin.create_topics([NewTopic("dlq.orders", 3, 1), NewTopic("orders", 4, 1)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": product.kafka, "linger.ms": 20})
    for number in range(LETTERS + OTHERS):
        reason = "handler" if number < LETTERS else "schema"
        headers = [("sluice.error.reason", reason), ("sluice.origin.topic", "orders"), ("mine", str(number))]
        producer.produce("dlq.orders", f"letter-{number}", key=f"key-{number % 50}", headers=headers)
        producer.poll(0)
    assert producer.flush(30) == 0


def read(product: Product, topic: str, partitions: int) -> list[tuple[bytes, bytes]]:
    consumer = Consumer(
        {"bootstrap.servers": product.kafka, "group.id": "check", "isolation.level": "read_committed",
         "enable.partition.eof": True, "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found, ended, deadline = [], set(), time.monotonic() + 60
    while len(ended) < partitions and time.monotonic() < deadline:
        for message in consumer.consume(500, 1.0):
            if message.error():
                ended.add(message.partition())
            else:
                found.append((message.key(), message.value()))
    consumer.close()
    return found


def test_everything_selected_arrives_once_and_nothing_else_moves(product: Product) -> None:
    fill(product)
    deadline = time.monotonic() + 60
    while int(shell(product, COUNT, "COUNT")) < LETTERS + OTHERS:
        assert time.monotonic() < deadline, "the letters were not indexed"
    job, total = shell(product, START, "job").split()
    assert int(total) == LETTERS

    # in its middle: some records have arrived, some have not
    deadline = time.monotonic() + 60
    while not 0 < len(read(product, "orders", 4)) < LETTERS:
        assert time.monotonic() < deadline, "the redrive did not begin, or was over too soon"
    product.kill("worker")

    deadline = time.monotonic() + 150
    state = json.loads(shell(product, STATE.format(job=job), "STATE"))
    while state[0] not in ("done", "failed", "cancelled"):
        assert time.monotonic() < deadline, state
        time.sleep(1)
        state = json.loads(shell(product, STATE.format(job=job), "STATE"))
    assert state[0] == "done", state
    assert state[3] >= 2, "the job was not taken over"
    assert state[5] == {"redriven": LETTERS, "open": OTHERS}

    arrived = Counter(value for _, value in read(product, "orders", 4))
    assert arrived == Counter({f"letter-{number}".encode(): 1 for number in range(LETTERS)})
    assert len(read(product, "dlq.orders", 3)) == LETTERS + OTHERS
