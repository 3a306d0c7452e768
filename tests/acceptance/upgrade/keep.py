"""Keep a product's data as a release leaves it: `python -m tests.acceptance.upgrade.keep > …/kept/product-<n>.txt`.

A whole product is started in a new folder, given a little of everything, and killed: journal, segments, checkpoint and
metadata records, the gateway's local copy, the console's database as its migrations made it. As text, one line a
file: its path, its length, and its bytes (trailing zeros left out, zlib, base64). Made once per release that changes a
format, read by a reviewer, and never made again: later releases must open it as it is.
"""

from __future__ import annotations

import base64
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker.client import Admin, Settings
from broker.client.administration.types import Scram
from tests.running_product import Product

DEVICE = "kept-device"
ADMIN_PASSWORD = "kept administrator"
GATEWAY = "kept"
LEFT_OUT = ("locale", "static", "celery", "broker/spare")


def fill(product: Product) -> None:
    """A little of everything that is kept in a file."""
    admin = AdminClient({"bootstrap.servers": product.kafka})
    topics = [
        NewTopic("plain", 3, 1, config={"segment.bytes": "1048576", "retention.ms": "-1"}),
        NewTopic("compacted", 1, 1, config={"cleanup.policy": "compact"}),
    ]
    for made in admin.create_topics(topics).values():
        made.result(30)
    with Admin(Settings(bootstrap=product.kafka)) as direct:
        direct.put_user("kept-user", "kept-secret", Scram.SHA_256, 4096)
    plain = Producer({"bootstrap.servers": product.kafka, "enable.idempotence": True})
    for number in range(30):
        plain.produce("plain", b"%d" % number, key=b"k%d" % number, partition=number % 3, headers={"n": str(number)})
    for number in range(6):
        plain.produce("compacted", b"%d" % number, key=b"k%d" % (number % 2))
    plain.flush(30)
    for name, commit in (("committed", True), ("aborted", False)):
        producer = Producer({"bootstrap.servers": product.kafka, "transactional.id": name})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce("plain", name.encode(), partition=0)
        producer.commit_transaction(30) if commit else (producer.flush(30), producer.abort_transaction(30))
    group = Consumer({"bootstrap.servers": product.kafka, "group.id": "kept-group", "enable.auto.commit": False})
    group.commit(offsets=[TopicPartition("plain", index, 2 + index) for index in range(3)], asynchronous=False)
    group.close()
    added = subprocess.run(
        [sys.executable, "manage.py", "device", "add", DEVICE, "--password-stdout"],
        env=product.environ, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert added.stdout
    subprocess.run(
        ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(product.mqtt_port), "-i", "kept-client", "-q", "1", "-r",
         "-t", "plant/7/kept", "-m", "retained"],
        check=True, timeout=30,
    )  # fmt: skip


def copied(product: Product) -> bool:
    """Whether the gateway's local copy has heard of it."""
    for file in product.data.glob("gateway*.sqlite3"):
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
            if database.execute("SELECT count(*) FROM rows").fetchone()[0]:
                return True
    return False


def pack(folder: Path) -> str:
    """The files as text."""
    lines = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            not path.is_file()
            or name.startswith(LEFT_OUT)
            or path.name.endswith(("lock", "hold", "processes.json", "-shm"))
        ):
            continue
        raw = path.read_bytes()
        text = base64.b64encode(zlib.compress(raw.rstrip(b"\0"), 9)).decode()
        lines.append(f"{name} {len(raw)} {text}\n")
    return "".join(lines)


def unpack(text: str, folder: Path) -> None:
    """The files again."""
    for line in text.splitlines():
        name, size, content = line.rsplit(" ", 2)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("wb") as file:
            file.write(zlib.decompress(base64.b64decode(content)))
            file.truncate(int(size))
        path.chmod(0o600)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        product = Product(Path(folder) / "data", password=ADMIN_PASSWORD, SLUICE_GATEWAY_NAME=GATEWAY)
        product.start()
        try:
            fill(product)
            deadline = time.monotonic() + 60
            while not (copied(product) and (product.data / "broker" / "checkpoint").exists()):
                if time.monotonic() > deadline:
                    raise SystemExit("the gateway wrote no local copy")
                time.sleep(0.2)
            after = Producer({"bootstrap.servers": product.kafka})
            after.produce("plain", b"after the checkpoint", partition=1)
            after.flush(30)
            assert product.process is not None
            os.kill(product.process.pid, signal.SIGSTOP)  # or it would start the killed ones again
            product.kill("broker")
            product.kill("gateway")
            os.kill(product.process.pid, signal.SIGKILL)  # its leash takes the others along
            product.process.wait(30)
            time.sleep(5)
        finally:
            product.stop()
        sys.stdout.write(pack(product.data))


if __name__ == "__main__":
    main()
