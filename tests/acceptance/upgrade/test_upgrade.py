"""A product's whole data folder as earlier releases left it opens with this one, with everything in it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from broker.client import Admin, Settings
from gateway.storage.local import LocalCopy
from tests.acceptance.upgrade import keep
from tests.running_product import Product

KEPT = Path(__file__).parent / "kept"
NUMBERS = {b"%d" % number for number in range(30)}


def read(bootstrap: str, topic: str, partitions: int, count: int) -> list[tuple[bytes | None, bytes]]:
    """Keys and values of the topic's committed records, once `count` are there."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "upgrade", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, index, 0) for index in range(partitions)])
    found: list[tuple[bytes | None, bytes]] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found += [(each.key(), each.value()) for each in consumer.consume(count - len(found), timeout=1.0)]
    consumer.close()
    return found


def assert_the_gateways_copy_is_used(data: Path, place: Path) -> None:
    """Not thrown away and made anew: rows and positions are there."""
    shutil.copytree(data, place, ignore=lambda _, names: [name for name in names if not name.startswith("gateway")])
    (file,) = place.glob("gateway*.sqlite3")
    with sqlite3.connect(file) as raw:
        (cluster,) = raw.execute("SELECT cluster FROM identity").fetchone()
    copy = LocalCopy(file, cluster)
    assert [key for key, _ in copy.rows("__sluice_devices")] == [keep.DEVICE.encode()]
    copy.close()


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.stem)
def test_a_product_of_an_earlier_release_goes_on_with_all_it_had(path: Path, tmp_path: Path) -> None:
    keep.unpack(path.read_text(), tmp_path / "data")
    credential = json.loads((tmp_path / "data" / "internal.json").read_text())
    assert_the_gateways_copy_is_used(tmp_path / "data", tmp_path / "copy")
    product = Product(tmp_path / "data", password=None, SLUICE_GATEWAY_NAME=keep.GATEWAY)
    try:
        product.start()
        assert "damage found" not in product.said()
        assert "after a crash" in product.said()
        # the log: records, headers' topics, what transactions committed and what came after the checkpoint
        values = {value for _, value in read(product.kafka, "plain", 3, 32)}
        assert values == NUMBERS | {b"committed", b"after the checkpoint"}
        assert dict(read(product.kafka, "compacted", 1, 6))[b"k1"] == b"5"
        # metadata: configurations, users
        admin = AdminClient({"bootstrap.servers": product.kafka})
        resource = ConfigResource(ConfigResource.Type.TOPIC, "plain")
        assert admin.describe_configs([resource])[resource].result(60)["segment.bytes"].value == "1048576"
        with Admin(Settings(bootstrap=product.kafka)) as direct:
            assert "kept-user" in {user.name for user in direct.users()}
        # groups, and a transaction's producer
        consumer = Consumer({"bootstrap.servers": product.kafka, "group.id": "kept-group"})
        committed = consumer.committed([TopicPartition("plain", index) for index in range(3)], timeout=60)
        assert [each.offset for each in committed] == [2, 3, 4]
        consumer.close()
        producer = Producer({"bootstrap.servers": product.kafka, "transactional.id": "aborted"})
        producer.init_transactions(30)
        # the console's database and the gateway's registry
        assert keep.DEVICE in product.manage("device", "list").stdout
        kept = json.loads((tmp_path / "data" / "internal.json").read_text())
        assert kept == credential
        with sqlite3.connect(f"file:{product.data}/history.sqlite3?mode=ro", uri=True) as history:
            assert history.execute("SELECT count(*) FROM series").fetchone()[0]
    finally:
        product.stop()
