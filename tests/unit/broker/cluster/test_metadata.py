"""The metadata image: live changes and a replay give the same, a failed write is taken back."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cluster.acls import Acl, Operation, PatternType, Permission, ResourceType
from broker.cluster.metadata import (
    PRODUCER_ID_BLOCK,
    Change,
    Image,
    Metadata,
    Topic,
    UnknownMetadataVersion,
    acl_key,
    decode,
    encode,
    new_topic_id,
    topic_change,
)


class MemoryLog:
    """A metadata log in memory; `broken` makes it lose what it is given, as a full disk does."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self.broken = False

    def append(self, records: list[tuple[bytes, bytes | None]]) -> int:
        if not self.broken:
            self.records += records
        return len(self.records)

    async def durable(self, position: int) -> None:
        if self.broken:
            raise OSError("no space")

    def replay(self) -> Iterable[tuple[bytes, bytes | None]]:
        return list(self.records)


def topic(name: str, topic_id: bytes = b"i" * 16, partitions: int = 1, **configs: str) -> Topic:
    return Topic(name=name, topic_id=topic_id, partitions=partitions, created=5, configs=configs)


def acl(name: str) -> Acl:
    return Acl(
        resource_type=ResourceType.TOPIC,
        pattern_type=PatternType.LITERAL,
        name=name,
        principal="User:a",
        host="*",
        operation=Operation.READ,
        permission=Permission.ALLOW,
    )


def seen(image: Image) -> object:
    return (
        image.cluster_id,
        image.topics,
        image.topics_by_id,
        image.configs,
        set(image.acls),
        image.scram,
        image.quotas,
        image.next_producer_id,
    )


ids = st.sampled_from([b"1" * 16, b"2" * 16, b"3" * 16])
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(lambda i, n, p: topic_change(topic(n, i, p)), ids, st.sampled_from("ab"), st.integers(1, 9)),
    ids.map(lambda i: (("topic", i.hex()), None)),
    st.builds(lambda n, v: (("config", "group", n), {"configs": v}), st.sampled_from("ab"), st.just({"x": "1"})),
    st.sampled_from("ab").map(lambda n: (("config", "group", n), None)),
    st.sampled_from("abc").map(lambda n: (acl_key(acl(n)), {})),
    st.sampled_from("abc").map(lambda n: (acl_key(acl(n)), None)),
    st.sampled_from("ab").map(lambda n: (("quota", [["user", n]]), {"values": {"producer_byte_rate": 5.0}})),
    st.integers(0, 9).map(lambda n: (("producer-ids",), {"next": n})),
)


@given(st.lists(changes, max_size=30))
def test_replaying_the_log_gives_the_image_live_changes_made(some: list[Change]) -> None:
    log = MemoryLog()
    live = Metadata(log)
    for change in some:
        live.change_now([change])
    assert seen(Metadata(log).image) == seen(live.image)


def test_a_topic_deleted_and_made_again_under_its_name_has_the_new_id() -> None:
    log = MemoryLog()
    metadata = Metadata(log)
    metadata.change_now([topic_change(topic("a", b"1" * 16))])
    metadata.change_now([topic_change(topic("a", b"2" * 16))])
    metadata.change_now([(("topic", (b"1" * 16).hex()), None)])
    assert metadata.image.topics["a"].topic_id == b"2" * 16


async def test_a_change_the_log_could_not_keep_is_taken_back() -> None:
    log = MemoryLog()
    metadata = Metadata(log)
    await metadata.change([topic_change(topic("kept"))])
    rebuilt = []
    metadata.on_rebuilt.append(lambda: rebuilt.append(1))
    log.broken = True
    with pytest.raises(OSError, match="space"):
        await metadata.change([topic_change(topic("lost", b"2" * 16)), (acl_key(acl("x")), {})])
    assert list(metadata.image.topics) == ["kept"]
    assert not metadata.authorizer.on
    assert rebuilt == [1]


async def test_producer_ids_are_never_handed_out_twice_even_across_restarts() -> None:
    log = MemoryLog()
    first = Metadata(log)
    handed = [await first.next_producer_id() for _ in range(PRODUCER_ID_BLOCK + 3)]
    second = Metadata(log)
    handed += [await second.next_producer_id() for _ in range(3)]
    assert len(set(handed)) == len(handed)


def test_a_record_of_an_unknown_version_is_refused_and_an_unknown_kind_passed_over() -> None:
    image = Image()
    image.apply(("weather",), {"v": 1})
    with pytest.raises(UnknownMetadataVersion):
        image.apply(("cluster",), {"v": 2, "id": "x"})


def test_a_change_survives_the_wire() -> None:
    change = topic_change(topic("ü", **{"retention.ms": "5"}))
    key, value = decode(*encode(change))
    assert key == change[0]
    assert value == {"v": 1, **(change[1] or {})}


def test_topic_ids_are_random_version_4_uuids() -> None:
    made = {new_topic_id() for _ in range(100)}
    assert len(made) == 100
    assert all(one[6] >> 4 == 4 and one[8] >> 6 == 2 for one in made)
