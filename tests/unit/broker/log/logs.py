"""Small things the log's tests share: batches, a store on the fake disk, reading everything."""

from __future__ import annotations

from collections.abc import Sequence

from broker.log.config import LogConfig
from broker.log.partition import Partition
from broker.log.store import Store, StoreConfig
from broker.wire import batch as wire
from tests.fakes.disk import Disk

NOW = 1_700_000_000_000
TOPIC = bytes(range(16))
SMALL = StoreConfig(journal_file_bytes=16 << 10, min_free_bytes=0)


def batch(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    timestamps: Sequence[int] | None = None,
    producer: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
) -> list[wire.Batch]:
    """One validated batch, as a produce request brings it."""
    records = [
        wire.Record(slot, timestamps[slot] if timestamps else NOW, keys[slot] if keys else b"k%d" % slot, value, ())
        for slot, value in enumerate(values)
    ]
    raw = wire.build(
        records, producer_id=producer, producer_epoch=epoch, base_sequence=sequence, transactional=transactional
    )
    return wire.validate(raw, 1 << 20)


def open_store(disk: Disk, config: StoreConfig = SMALL) -> Store:
    """A store on the fake disk."""
    return Store.open("/data", NOW, files=disk, config=config, salt=lambda: 7)


def filled(disk: Disk, *, config: LogConfig | None = None, batches: int = 0) -> tuple[Store, Partition]:
    """A store with one partition and some batches of three records."""
    store = open_store(disk)
    partition = store.create("plain", TOPIC, 0, config or LogConfig())
    for number in range(batches):
        partition.append(batch([b"v%d" % number] * 3), NOW)
    store.settle()
    return store, partition


def values(partition: Partition, *, committed: bool = False) -> list[bytes | None]:
    """Every value from the log's start on."""
    out: list[bytes | None] = []
    offset = partition.log_start_offset
    while True:
        found = partition.read(offset, 1 << 20, committed=committed)
        batches = [one for buffer in found.buffers for one in wire.split(buffer)]
        if not batches:
            return out
        for one in batches:
            if not one.control:
                out.extend(record.value for record in wire.records(one) if record.offset >= offset)
        offset = batches[-1].last_offset + 1
