"""Topics when the storage says no: what was refused is nowhere, what was there before still works."""

from __future__ import annotations

from typing import Any

import pytest

from broker.log.failures import StorageFull
from tests.integration.broker.wire_client import Running, produce


class Full:
    """A metadata log on a full disk."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def append(self, records: list[tuple[bytes, bytes | None]]) -> int:
        raise StorageFull

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def test_a_topic_that_could_not_be_written_down_leaves_nothing_behind(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics, metadata = running.broker.topics, running.broker.metadata
    kept = await topics.create("kept", 1)
    with monkeypatch.context() as patched:
        patched.setattr(metadata, "_log", Full(metadata._log))
        with pytest.raises(StorageFull):
            await topics.create("lost", 2)
        with pytest.raises(StorageFull):
            await topics.grow(kept, 3)
        with pytest.raises(StorageFull):
            await topics.delete(kept)
    assert topics.get("lost") is None
    assert topics.partitions("lost") == []
    assert len(topics.partitions("kept")) == 1
    connection = await running.connect()
    assert (await produce(connection, "kept", b"x")).error_code == 0
    assert len((await topics.create("lost", 2)).topic_id) == 16
    owned = {metadata.image.topics[name].topic_id for name in metadata.image.topics}
    assert {partition.topic_id for partition in running.broker.store.partitions()} <= owned
