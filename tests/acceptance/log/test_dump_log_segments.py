"""Kafka's own DumpLogSegments reads what the log writes: every batch and record, every index entry."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker.log.config import LogConfig
from broker.log.partition import Partition
from broker.log.store import Store
from broker.wire import batch as wire
from broker.wire.batch import Compression
from tests.acceptance.kafka import java

NOW = 1_700_000_000_000
MAIN = "org.apache.kafka.tools.DumpLogSegments"


def append(partition: Partition, number: int, **how: object) -> None:
    records = [
        wire.Record(slot, NOW + number * 10 + slot, b"key-%d" % (number % 5), b"value %d" % number * 20, (("h", b"x"),))
        for slot in range(5)
    ]
    partition.append(wire.validate(wire.build(records, **how), 1 << 20), NOW)  # type: ignore[arg-type]


def written(folder: Path) -> list[Path]:
    """Two partitions with every codec, a producer, transactions, rolled segments, a compacted one; closed."""
    store = Store.open(str(folder), NOW)
    plain = store.create("plain", bytes(range(16)), 0, LogConfig(segment_bytes=20_000, index_interval_bytes=500))
    compact = LogConfig(cleanup_policy=frozenset(("compact",)), segment_bytes=4000, index_interval_bytes=500)
    keyed = store.create("keyed", bytes(16), 0, compact)
    for number in range(60):
        append(plain, number, compression=Compression(number % 5))
        append(plain, number, producer_id=7, producer_epoch=0, base_sequence=number * 5, transactional=True)
        store.settle()
        plain.append_control(7, 0, commit=number % 3 != 0, coordinator_epoch=0, now=NOW)
        append(keyed, number)
        store.settle()
    store.checkpoint(NOW)
    for _ in range(2):
        for _ in store.maintain(NOW):
            pass
        store.settle()
    assert keyed.size < 30_000
    store.close(NOW)
    return sorted(path for path in folder.glob("*-0/*") if path.suffix in (".log", ".index", ".timeindex", ".txnindex"))


@pytest.fixture(scope="module")
def classpath() -> str:
    try:
        return java.classpath("dump")
    except java.JavaMissing as missing:
        pytest.skip(f"not run: {missing}")


def test_dump_log_segments_reads_every_file(tmp_path: Path, classpath: str) -> None:
    files = written(tmp_path)
    kinds = {path.suffix for path in files if path.stat().st_size}
    assert kinds == {".log", ".index", ".timeindex", ".txnindex"}
    options = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", classpath]
    arguments = ["--deep-iteration", "--print-data-log", "--files", ",".join(map(str, files))]
    done = subprocess.run(
        ["java", *options, MAIN, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    for complaint in ("Mismatches in", "isvalid: false", "Exception", "timestamp mismatch", "out of order timestamp"):
        assert complaint not in text, text[text.find(complaint) - 500 :][:2000]
    gaps = text.partition("Non-consecutive offsets in")[2].splitlines()
    assert all("plain-0" not in line for line in gaps if line.startswith(str(tmp_path)))
    assert text.count("payload: value") > 300
    assert text.count("endTxnMarker: ABORT") == 20
    assert text.count("endTxnMarker: COMMIT") == 40
