from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.groups.assignors import Candidate, Target, range_, uniform

TOPICS = {bytes([name]) * 16: name for name in range(3)}
subscriptions = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.frozensets(st.sampled_from(sorted(TOPICS))), min_size=1
)
counts = st.dictionaries(st.sampled_from(sorted(TOPICS)), st.integers(0, 7))


def candidates(wants: dict[str, frozenset[bytes]], owned: Target | None = None) -> dict[str, Candidate]:
    return {
        m: Candidate(id=m, instance_id=None, topics=topics, owned=(owned or {}).get(m, frozenset()))
        for m, topics in wants.items()
    }


@given(subscriptions, counts)
def test_both_give_every_wanted_partition_to_one_subscriber(
    wants: dict[str, frozenset[bytes]], topics: dict[bytes, int]
) -> None:
    for assign in (uniform, range_):
        target = assign(candidates(wants), topics)
        given_out = [p for share in target.values() for p in share]
        assert len(given_out) == len(set(given_out))
        wanted = frozenset().union(*wants.values())
        assert set(given_out) == {(t, i) for t, n in topics.items() if t in wanted for i in range(n)}
        assert all(topic in wants[m] for m, share in target.items() for topic, _ in share)


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), counts)
def test_uniform_shares_differ_by_one_at_most_when_all_want_the_same(
    members: set[str], topics: dict[bytes, int]
) -> None:
    target = uniform(candidates({m: frozenset(topics) for m in members}), topics)
    sizes = [len(share) for share in target.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.sets(st.sampled_from("abcdefgh"), min_size=2), counts, st.randoms(use_true_random=False))
def test_uniform_takes_from_nobody_what_need_not_move(
    members: set[str], topics: dict[bytes, int], chance: object
) -> None:
    wants = {m: frozenset(topics) for m in members}
    before = uniform(candidates(wants), topics)
    assert uniform(candidates(wants, before), topics) == before
    gone = sorted(members)[0]
    rest = {m: t for m, t in wants.items() if m != gone}
    after = uniform(candidates(rest, before), topics)
    assert all(before[m] <= after[m] for m in rest)
    came = {**rest, "zz": frozenset(topics)}
    again = uniform(candidates(came, after), topics)
    assert all(again[m] <= after[m] for m in rest), "only the newcomer gets anything"


@given(subscriptions, counts)
def test_uniform_leaves_no_move_that_would_make_it_more_even(
    wants: dict[str, frozenset[bytes]], topics: dict[bytes, int]
) -> None:
    target = uniform(candidates(wants), topics)
    for giver, share in target.items():
        for topic, _ in share:
            for taker in wants:
                if topic in wants[taker]:
                    assert len(target[taker]) + 1 >= len(share) or taker == giver


def test_range_gives_contiguous_shares_that_match_between_topics_of_one_size() -> None:
    one, two = sorted(TOPICS)[:2]
    target = range_(candidates({m: frozenset((one, two)) for m in "abc"}), {one: 7, two: 7})
    assert sorted(i for t, i in target["a"] if t == one) == [0, 1, 2]
    assert sorted(i for t, i in target["b"] if t == one) == [3, 4]
    for m in "abc":
        assert {i for t, i in target[m] if t == one} == {i for t, i in target[m] if t == two}
