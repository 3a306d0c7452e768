"""Make the kept data of a release: `python -m tests.integration.log.keep > tests/integration/log/kept/format-1.txt`.

A small store as it lies on the disk after a crash (a checkpoint, segments, a journal to be replayed), as text: one line
per file, its path and its bytes (zlib, base64). Written once per format version and never again: the upgrade test
opens it with every later version.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import zlib
from pathlib import Path

from broker.log.config import LogConfig
from broker.log.store import Store, StoreConfig
from tests.unit.broker.log.logs import NOW, TOPIC, batch

FORMATS = 1  # the newest: journal, checkpoint, producer snapshot and backup are all at 1


def make(folder: str) -> None:
    """Write the store."""
    store = Store.open(folder, NOW, config=StoreConfig(journal_file_bytes=16 << 10), salt=lambda: 11)
    plain = store.create("plain", TOPIC, 0, LogConfig(segment_bytes=600))
    keyed = store.create("keyed", TOPIC[::-1], 3, LogConfig())
    for number in range(10):
        plain.append(batch([b"before %d" % number], producer=5, epoch=0, sequence=number), NOW + number)
    keyed.append(batch([b"open"], producer=6, epoch=1, sequence=0, transactional=True), NOW)
    keyed.append(batch([b"aborted"], producer=7, epoch=0, sequence=0, transactional=True), NOW)
    keyed.append_control(7, 0, commit=False, coordinator_epoch=2, now=NOW)
    store.settle()
    plain.delete_records_before(4)
    store.settle()
    store.checkpoint(NOW)
    for number in range(10):
        plain.append(batch([b"after %d" % number], producer=5, epoch=0, sequence=10 + number), NOW + number)
    store.settle()
    store.abandon()


def pack(folder: Path) -> str:
    """The files as text."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("lock", "hold")]
    texts = {path: base64.b64encode(zlib.compress(path.read_bytes(), 9)).decode() for path in kept}
    return "".join(f"{path.relative_to(folder)} {text}\n" for path, text in texts.items())


def unpack(text: str, folder: Path) -> None:
    """The files again."""
    for line in text.splitlines():
        name, _, content = line.rpartition(" ")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zlib.decompress(base64.b64decode(content)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        make(made)
        sys.stdout.write(pack(Path(made)))
