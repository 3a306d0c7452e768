"""Who of a share group reads which partitions."""

from hypothesis import given
from hypothesis import strategies as st

from broker.groups.share import spread

TOPICS = st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 9), max_size=3)


@given(topics=TOPICS, members=st.integers(1, 12))
def test_every_partition_has_two_members_where_there_are_two_and_nobody_is_idle(
    topics: dict[bytes, int], members: int
) -> None:
    shares = spread({f"m{n:02}": frozenset(topics) for n in range(members)}, topics)
    for topic, count in topics.items():
        for index in range(count):
            assert sum((topic, index) in share for share in shares.values()) >= min(2, members)
    if topics:
        assert all(shares.values())


@given(
    topics=TOPICS,
    wants=st.dictionaries(st.text("xyz", min_size=1, max_size=2), st.frozensets(st.sampled_from([b"a", b"b", b"d"]))),
)
def test_nobody_is_given_what_it_did_not_ask_for(topics: dict[bytes, int], wants: dict[str, frozenset[bytes]]) -> None:
    for member, share in spread(wants, topics).items():
        assert all(topic in wants[member] and index < topics[topic] for topic, index in share)
