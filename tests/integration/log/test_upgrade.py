"""Data written by earlier releases opens with this one."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.log.backup import backup, restore
from broker.log.files import RealFiles
from broker.log.store import Store
from broker.log.verify import verify
from tests.integration.log import keep
from tests.unit.broker.log.logs import NOW, TOPIC, batch, values

KEPT = Path(__file__).parent / "kept"


def test_every_format_version_is_kept() -> None:
    assert [path.name for path in sorted(KEPT.iterdir())] == [f"format-{n + 1}.txt" for n in range(keep.FORMATS)]


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.stem)
def test_a_store_of_an_earlier_release_opens_with_everything_in_it(path: Path, tmp_path: Path) -> None:
    keep.unpack(path.read_text(), tmp_path / "old")
    store = Store.open(str(tmp_path / "old"), NOW)
    assert store.recovery.damage == ()
    assert not store.recovery.clean
    plain, keyed = store.partition(TOPIC, 0), store.partition(TOPIC[::-1], 3)
    expected = [b"before %d" % number for number in range(4, 10)] + [b"after %d" % number for number in range(10)]
    assert values(plain) == expected
    assert (plain.topic, plain.log_start_offset, plain.high_watermark) == ("plain", 4, 20)
    assert plain.append(batch([b"after 9"], producer=5, epoch=0, sequence=19), NOW).duplicate
    assert (keyed.last_stable_offset, keyed.high_watermark) == (0, 3)
    assert keyed.has_open_transaction(6)
    assert [entry.producer_id for entry in keyed.aborted_transactions()] == [7]
    store.close(NOW)
    assert list(verify(RealFiles(), str(tmp_path / "old"))) == []
    backup(RealFiles(), str(tmp_path / "old"), str(tmp_path / "copy"), NOW, wait=lambda: None)
    restore(RealFiles(), str(tmp_path / "copy"), str(tmp_path / "new"))
    again = Store.open(str(tmp_path / "new"), NOW)
    assert values(again.partition(TOPIC, 0)) == expected
    again.close(NOW)
