"""Which topics are open to deliveries, by the cluster's ACLs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.client.administration import types
from broker.client.delaying import PRINCIPAL
from broker.cluster import acls
from broker.delay.targets import may_write

RULES = st.builds(
    types.Acl,
    resource=st.sampled_from([types.ResourceType.TOPIC, types.ResourceType.GROUP]),
    name=st.sampled_from(["orders", "orders.", "ord", "*", "other"]),
    pattern=st.sampled_from([types.Pattern.LITERAL, types.Pattern.PREFIXED]),
    principal=st.sampled_from([PRINCIPAL, "User:*", "User:alice"]),
    host=st.just("*"),
    operation=st.sampled_from([types.Operation.WRITE, types.Operation.READ, types.Operation.ALL]),
    permission=st.sampled_from([types.Permission.ALLOW, types.Permission.DENY]),
)


@given(rules=st.lists(RULES, min_size=1, max_size=8), topic=st.sampled_from(["orders", "orders.eu", "other", "else"]))
def test_the_decision_is_the_brokers_own(rules: list[types.Acl], topic: str) -> None:
    known = [
        acls.Acl(
            resource_type=acls.ResourceType(rule.resource),
            pattern_type=acls.PatternType(rule.pattern),
            name=rule.name,
            principal=rule.principal,
            host=rule.host,
            operation=acls.Operation(rule.operation),
            permission=acls.Permission(rule.permission),
        )
        for rule in rules
    ]
    decision = acls.authorize(
        known,
        principal=PRINCIPAL,
        host="127.0.0.1",
        operation=acls.Operation.WRITE,
        resource_type=acls.ResourceType.TOPIC,
        name=topic,
    )
    assert may_write(rules, topic) == decision.allowed


def test_without_any_rule_everything_is_open_and_with_one_nothing_else() -> None:
    assert may_write([], "orders")
    other = types.Acl(
        resource=types.ResourceType.GROUP,
        name="g",
        pattern=types.Pattern.LITERAL,
        principal="User:alice",
        host="*",
        operation=types.Operation.READ,
        permission=types.Permission.ALLOW,
    )
    assert not may_write([other], "orders")
