"""Kafka's ACL rules, each by name, and the index against the plain list."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cluster.acls import (
    OPERATIONS_OF,
    Acl,
    AclFilter,
    AclIndex,
    Authorizer,
    Operation,
    PatternType,
    Permission,
    ResourceType,
    authorize,
    authorize_by_resource_type,
)

ALICE = "User:alice"


def acl(**changes: object) -> Acl:
    usual = Acl(
        resource_type=ResourceType.TOPIC,
        pattern_type=PatternType.LITERAL,
        name="orders",
        principal=ALICE,
        host="*",
        operation=Operation.READ,
        permission=Permission.ALLOW,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # fields by name


def allowed(*acls: Acl, operation: Operation = Operation.READ, name: str = "orders", **more: object) -> bool:
    asked: dict[str, object] = {"principal": ALICE, "host": "10.0.0.1", "resource_type": ResourceType.TOPIC, **more}
    return authorize(acls, operation=operation, name=name, **asked).allowed  # type: ignore[arg-type]  # fields by name


def test_nothing_matching_is_denied() -> None:
    assert not allowed()
    assert not allowed(acl(name="payments"))
    assert not allowed(acl(principal="User:bob"))
    assert not allowed(acl(host="10.0.0.2"))
    assert not allowed(acl(resource_type=ResourceType.GROUP))


def test_a_literal_a_prefix_and_the_wildcard_allow() -> None:
    assert allowed(acl())
    assert allowed(acl(name="ord", pattern_type=PatternType.PREFIXED))
    assert allowed(acl(name="*"))
    assert allowed(acl(principal="User:*"))


def test_a_prefixed_star_is_not_the_wildcard() -> None:
    assert not allowed(acl(name="*", pattern_type=PatternType.PREFIXED))


@pytest.mark.parametrize(
    "denial",
    [
        acl(permission=Permission.DENY),
        acl(permission=Permission.DENY, name="*"),
        acl(permission=Permission.DENY, name="o", pattern_type=PatternType.PREFIXED),
        acl(permission=Permission.DENY, principal="User:*"),
        acl(permission=Permission.DENY, operation=Operation.ALL),
    ],
)
def test_a_deny_wins_at_any_specificity(denial: Acl) -> None:
    assert not allowed(acl(), denial)
    assert not allowed(denial, acl())


@pytest.mark.parametrize("operation", [Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER])
def test_allowing_one_of_four_operations_allows_to_describe(operation: Operation) -> None:
    assert allowed(acl(operation=operation), operation=Operation.DESCRIBE)


def test_allowing_to_alter_configs_allows_to_describe_configs_and_no_more() -> None:
    granted = acl(operation=Operation.ALTER_CONFIGS)
    assert allowed(granted, operation=Operation.DESCRIBE_CONFIGS)
    assert not allowed(granted, operation=Operation.DESCRIBE)
    assert not allowed(acl(operation=Operation.CREATE), operation=Operation.DESCRIBE)


def test_denials_imply_nothing() -> None:
    grant = acl(operation=Operation.DESCRIBE)
    assert allowed(grant, acl(operation=Operation.READ, permission=Permission.DENY), operation=Operation.DESCRIBE)


def test_without_any_acl_about_the_resource_the_default_decides() -> None:
    assert allowed(allow_if_no_acl=True)
    assert not allowed(acl(principal="User:bob"), allow_if_no_acl=True)


def test_a_super_user_may_do_what_is_denied() -> None:
    assert allowed(acl(permission=Permission.DENY), super_users={ALICE})


def test_any_topic_open_counts_unless_a_denial_covers_it() -> None:
    def some(*acls: Acl) -> bool:
        return authorize_by_resource_type(
            acls, principal=ALICE, host="h", operation=Operation.READ, resource_type=ResourceType.TOPIC
        )

    deny = {"permission": Permission.DENY}
    assert not some()
    assert some(acl())
    assert not some(acl(), acl(**deny))
    assert some(acl(), acl(name="other", **deny))
    assert not some(acl(), acl(name="or", pattern_type=PatternType.PREFIXED, **deny))
    assert not some(acl(name="*"), acl(name="*", **deny))
    assert some(acl(name="*"), acl(**deny))
    assert not some(acl(operation=Operation.WRITE))


names = st.text("ab*", min_size=1, max_size=3)
acls = st.builds(
    Acl,
    resource_type=st.sampled_from([ResourceType.TOPIC, ResourceType.GROUP]),
    pattern_type=st.sampled_from([PatternType.LITERAL, PatternType.PREFIXED]),
    name=names,
    principal=st.sampled_from([ALICE, "User:bob", "User:*"]),
    host=st.sampled_from(["*", "h1", "h2"]),
    operation=st.sampled_from([Operation.ALL, *OPERATIONS_OF[ResourceType.TOPIC]]),
    permission=st.sampled_from([Permission.ALLOW, Permission.DENY]),
)


@given(st.lists(acls, max_size=12), st.data())
def test_the_index_decides_as_the_plain_list_does(some: list[Acl], data: st.DataObject) -> None:
    index = AclIndex(some)
    for gone in data.draw(st.lists(st.sampled_from(some), max_size=4)) if some else []:
        index.discard(gone)
        some = [one for one in some if one != gone]
    asked = {
        "principal": ALICE,
        "host": data.draw(st.sampled_from(["h1", "h2"])),
        "operation": data.draw(st.sampled_from(OPERATIONS_OF[ResourceType.TOPIC])),
        "resource_type": ResourceType.TOPIC,
        "name": data.draw(names),
    }
    found = list(index.about(asked["resource_type"], asked["name"]))
    assert authorize(found, **asked).allowed == authorize(some, **asked).allowed
    assert len(index) == len(set(some))


def authorizer(*some: Acl, **more: object) -> Authorizer:
    return Authorizer(AclIndex(some), super_users=("User:root",), **more)  # type: ignore[arg-type]  # fields by name


def ask(one: Authorizer, name: str = "orders", principal: str = ALICE) -> bool:
    return one.allows(
        principal=principal, host="h", operation=Operation.READ, resource_type=ResourceType.TOPIC, name=name
    )


def test_everything_is_allowed_until_there_is_an_acl_but_the_internal_topics() -> None:
    off = authorizer()
    assert ask(off)
    assert not ask(off, "__sluice_metadata")
    assert ask(off, "__sluice_metadata", "User:root")
    assert not ask(authorizer(acl(name="*")), "__sluice_metadata")
    assert not ask(authorizer(always_on=True))


def test_remembered_decisions_are_forgotten_when_acls_change() -> None:
    one = authorizer(acl())
    assert ask(one)
    one.acls.add(acl(permission=Permission.DENY))
    one.changed()
    assert not ask(one)
    assert (one.tallies[ALICE].allowed, one.tallies[ALICE].denied) == (1, 1)


def test_filters_match_as_kafka_does() -> None:
    literal, prefixed, star = acl(), acl(name="ord", pattern_type=PatternType.PREFIXED), acl(name="*")
    everything = AclFilter()
    assert all(everything.matches(one) for one in (literal, prefixed, star))
    match = AclFilter(pattern_type=PatternType.MATCH, name="orders")
    assert all(match.matches(one) for one in (literal, prefixed, star))
    exact = AclFilter(pattern_type=PatternType.ANY, name="orders")
    assert [exact.matches(one) for one in (literal, prefixed, star)] == [True, False, False]
    assert not AclFilter(pattern_type=PatternType.PREFIXED, name="orders").matches(literal)
    assert not AclFilter(operation=Operation.WRITE).matches(literal)
    assert not AclFilter(principal="User:bob").matches(literal)
