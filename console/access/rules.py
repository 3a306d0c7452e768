"""Pure: ACLs as text and addresses, the question whether one may do something, and what is odd about a set of ACLs.

The question is answered by the very `authorize()` that the embedded broker decides with.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from broker.cluster import acls as law
from console.kafka import types

ANY_USER = law.ANY_USER
CLUSTER_NAME = law.CLUSTER_NAME
RESOURCES = (
    types.ResourceType.TOPIC,
    types.ResourceType.GROUP,
    types.ResourceType.CLUSTER,
    types.ResourceType.TRANSACTIONAL_ID,
    types.ResourceType.DELEGATION_TOKEN,
    types.ResourceType.USER,
)


class UnknownAcl(ValueError):
    """The text doesn't name an ACL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regime:
    """How the cluster decides beside its ACLs. `certain`: read from it, not assumed."""

    always_on: bool = False
    allow_if_no_acl: bool = False
    super_users: tuple[str, ...] = ()
    certain: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`rule` is authorize()'s: super-user, internal-topic, off, deny, allow or default; `by` the ACL that decided."""

    allowed: bool
    rule: str
    by: types.Acl | None


def operations(resource: types.ResourceType) -> tuple[types.Operation, ...]:
    """What can be allowed on such a resource, ALL first."""
    return (types.Operation.ALL, *(types.Operation(int(each)) for each in law.OPERATIONS_OF[_resource(resource)]))


def may(
    acls: Iterable[types.Acl],
    regime: Regime,
    *,
    principal: str,
    host: str,
    operation: types.Operation,
    resource: types.ResourceType,
    name: str,
) -> Answer:
    """Whether `principal` (User:name) may do `operation` from `host`, and why."""
    index = law.AclIndex(as_law(acl) for acl in acls)
    authorizer = law.Authorizer(
        index,
        super_users=regime.super_users,
        always_on=regime.always_on,
        allow_if_no_acl=regime.allow_if_no_acl,
    )
    decision = authorizer.decide(
        principal=principal,
        host=host,
        operation=law.Operation(int(operation)),
        resource_type=_resource(resource),
        name=name,
    )
    return Answer(allowed=decision.allowed, rule=decision.rule, by=from_law(decision.by) if decision.by else None)


def as_law(acl: types.Acl) -> law.Acl:
    return law.Acl(
        resource_type=_resource(acl.resource),
        pattern_type=law.PatternType(int(acl.pattern)),
        name=acl.name,
        principal=acl.principal,
        host=acl.host,
        operation=law.Operation(int(acl.operation)),
        permission=law.Permission(int(acl.permission)),
    )


def from_law(acl: law.Acl) -> types.Acl:
    return types.Acl(
        resource=types.ResourceType(int(acl.resource_type)),
        pattern=types.Pattern(int(acl.pattern_type)),
        name=acl.name,
        principal=acl.principal,
        host=acl.host,
        operation=types.Operation(int(acl.operation)),
        permission=types.Permission(int(acl.permission)),
    )


def _resource(resource: types.ResourceType) -> law.ResourceType:
    return law.ResourceType(int(resource))


# --- what is odd

OPEN, LOCKED, WIDE = "open", "locked", "wide"


def oddities(acls: Sequence[types.Acl], regime: Regime) -> list[str]:
    """`open`: nothing is refused to anybody; `locked`: nothing is allowed to anybody but super-users; `wide`: one ACL
    allows everybody everything of a kind."""
    found = []
    allowing = [acl for acl in acls if acl.permission == types.Permission.ALLOW]
    if not acls and not regime.always_on:
        found.append(OPEN)
    elif not allowing and not regime.allow_if_no_acl:
        found.append(LOCKED)
    if any(
        acl.principal == ANY_USER
        and acl.host == law.WILDCARD
        and acl.operation == types.Operation.ALL
        and acl.pattern == types.Pattern.LITERAL
        and acl.name in (law.WILDCARD, CLUSTER_NAME)
        for acl in allowing
    ):
        found.append(WIDE)
    return found


# --- in addresses and on record


def token(acl: types.Acl) -> str:
    """An ACL as one word for addresses."""
    fields = [acl.resource, acl.name, acl.pattern, acl.principal, acl.host, acl.operation, acl.permission]
    return base64.urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).decode().rstrip("=")


def from_token(text: str) -> types.Acl:
    """Raises UnknownAcl."""
    try:
        fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        resource, name, pattern, principal, host, operation, permission = fields
        acl = types.Acl(
            resource=types.ResourceType(resource),
            name=name,
            pattern=types.Pattern(pattern),
            principal=principal,
            host=host,
            operation=types.Operation(operation),
            permission=types.Permission(permission),
        )
    except (ValueError, TypeError, binascii.Error) as error:
        raise UnknownAcl(text) from error
    if not all(isinstance(each, str) for each in (acl.name, acl.principal, acl.host)):
        raise UnknownAcl(text)
    return acl


def record(acl: types.Acl) -> dict[str, str]:
    """An ACL as the audit trail keeps it."""
    return {
        "resource": acl.resource.name,
        "name": acl.name,
        "pattern": acl.pattern.name,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation.name,
        "permission": acl.permission.name,
    }
