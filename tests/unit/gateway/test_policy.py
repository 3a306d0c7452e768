"""Who may publish or subscribe what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy import Grant, Policy, Rights, covers, matches, overlaps, problems, substitute, unfit, well_formed

level = st.sampled_from(["a", "b", "c", ""])
names = st.lists(level, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(st.sampled_from(["a", "b", "c", "", "+"]), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def rights(*policies: Policy, client: str = "c1", user: str = "u1") -> Rights:
    return Rights(policies, client, user, unrestricted=False)


def test_without_any_policy_everything_is_allowed() -> None:
    free = Rights((), "c1", "", unrestricted=True)
    assert free.may_publish("a/b") and free.may_receive("a/b") and free.subscribe("#") is Grant.GRANTED


def test_once_a_policy_exists_what_none_allows_is_denied() -> None:
    some = rights(Policy(name="p", publish=("up/#",)))
    assert some.may_publish("up/x")
    assert not some.may_publish("down/x")
    assert not some.may_receive("up/x")
    assert some.subscribe("up/#") is Grant.DENIED


def test_an_empty_policy_allows_nothing() -> None:
    none = rights(Policy(name="p"))
    assert not none.may_publish("a") and none.subscribe("a") is Grant.DENIED


@pytest.mark.parametrize("bad", ["a/#/b", "a+", "", "#a", "a\x00b"])
def test_a_malformed_filter_allows_nothing(bad: str) -> None:
    some = rights(Policy(name="p", publish=(bad,), subscribe=(bad,)))
    assert not some.may_publish("a") and some.subscribe("a") is Grant.DENIED
    assert problems(Policy(name="p", publish=(bad,)))


def test_a_malformed_denial_denies_everything() -> None:
    some = rights(Policy(name="p", publish=("#",), subscribe=("#",), deny_publish=("a/#/b",), deny_subscribe=("a+",)))
    assert not some.may_publish("x/y")
    assert some.subscribe("x/y") is Grant.DENIED


def test_denials_win() -> None:
    some = rights(Policy(name="p", publish=("#",), deny_publish=("secret/#",)))
    assert some.may_publish("open") and not some.may_publish("secret/x") and not some.may_publish("secret")
    decision = some.publish("secret/x")
    assert (decision.policy, decision.filter) == ("p", "secret/#")


def test_a_subscription_that_a_denial_overlaps_is_checked_at_each_delivery() -> None:
    some = rights(Policy(name="p", subscribe=("#",), deny_subscribe=("+/secret",)))
    assert some.subscribe("#") is Grant.CHECKED
    assert some.subscribe("a/open") is Grant.GRANTED
    assert some.subscribe("a/secret") is Grant.DENIED
    assert some.subscribe("a/#") is Grant.CHECKED
    assert not some.may_receive("a/secret") and some.may_receive("a/b/secret")


def test_a_subscription_wider_than_what_is_allowed_is_denied() -> None:
    some = rights(Policy(name="p", subscribe=("a/+",)))
    for wide in ("#", "a/#", "+/+", "a/b/c"):
        assert some.subscribe(wide) is Grant.DENIED, wide
    assert some.subscribe("a/b") is Grant.GRANTED
    assert some.subscribe("a/+") is Grant.GRANTED


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("%c/x", "c1/x"), ("${clientid}/x", "c1/x"), ("%u", "u1"), ("a/${username}/#", "a/u1/#"), ("plain", "plain")],
)
def test_placeholders_stand_for_client_id_and_user_name(pattern: str, expected: str) -> None:
    assert substitute(pattern, "c1", "u1") == expected


@pytest.mark.parametrize("name", ["a/b", "+", "#", "x\x00", "a+b"])
def test_a_name_that_would_change_the_filter_is_not_substituted(name: str) -> None:
    assert unfit(name)
    assert substitute("dev/%c", name, "u") is None
    some = Rights([Policy(name="p", publish=("dev/%c/#",))], name, "u", unrestricted=False)
    assert not some.may_publish(f"dev/{name}/x") and not some.may_publish("dev/other/x")


def test_a_name_is_not_expanded_twice() -> None:
    assert substitute("%c/%u", "%u", "secret") == "%u/secret"
    assert substitute("${clientid}", "${username}", "secret") == "${username}"


def test_an_anonymous_client_gets_nothing_from_a_user_name_placeholder() -> None:
    some = Rights([Policy(name="p", publish=("dev/%u",))], "c1", "", unrestricted=False)
    assert not some.may_publish("dev/") and not some.may_publish("dev/c1")


def test_wildcards_do_not_reach_dollar_topics() -> None:
    some = rights(Policy(name="p", subscribe=("#", "+/x")))
    assert some.subscribe("$SYS/#") is Grant.DENIED
    assert not some.may_receive("$SYS/x")


@settings(deadline=None)
@given(filters, names)
def test_what_covers_a_filter_matches_all_its_topics(narrow: str, topic: str) -> None:
    for wide in ("#", "a/#", "+/b", "a/+/c", narrow):
        if covers(wide, narrow) and matches(narrow, topic):
            assert matches(wide, topic)


@settings(deadline=None)
@given(filters, filters, names)
def test_filters_that_share_a_topic_overlap(one: str, other: str, topic: str) -> None:
    if matches(one, topic) and matches(other, topic):
        assert overlaps(one, other) and overlaps(other, one)


@settings(deadline=None)
@given(filters)
def test_a_filter_covers_and_overlaps_itself(one: str) -> None:
    assert well_formed(one) and covers(one, one) and overlaps(one, one)


@settings(deadline=None)
@given(filters, filters, names)
def test_a_granted_subscription_never_receives_what_is_not_allowed(allowed: str, denied: str, topic: str) -> None:
    some = rights(Policy(name="p", subscribe=(allowed,), deny_subscribe=(denied,)))
    for wanted in (allowed, topic, "#", "a/#"):
        if some.subscribe(wanted) is Grant.GRANTED and matches(wanted, topic):
            assert some.may_receive(topic)
