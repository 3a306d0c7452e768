"""Who may do what: Kafka's ACL semantics as pure functions.

The rules, in the order they decide (Kafka's StandardAuthorizer):

1. A super-user may do everything.
2. An ACL speaks about a resource when its pattern is LITERAL with the same name, LITERAL with the name `*`, or PREFIXED
   with a prefix of the name; it speaks about a peer when its principal is the peer's or `User:*`, and its host is the
   peer's or `*`.
3. A DENY for the operation (or ALL) decides, at any specificity. Denials imply nothing else.
4. An ALLOW for the operation (or ALL) decides. ALLOW of READ, WRITE, DELETE or ALTER implies DESCRIBE; ALLOW of
   ALTER_CONFIGS implies DESCRIBE_CONFIGS.
5. Otherwise: denied, unless no ACL at all speaks about the resource and `allow_if_no_acl` is set
   (Kafka's `allow.everyone.if.no.acl.found`).

`Authorizer` adds what is the product's own: authorisation counts as on once there is any ACL (or always, when told so),
and topics whose names begin with `__` are closed to everybody but super-users whatever the ACLs say.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

CLUSTER_NAME = "kafka-cluster"
WILDCARD = "*"
ANY_USER = "User:*"
INTERNAL_PREFIX = "__"


class ResourceType(IntEnum):
    UNKNOWN = 0
    ANY = 1
    TOPIC = 2
    GROUP = 3
    CLUSTER = 4
    TRANSACTIONAL_ID = 5
    DELEGATION_TOKEN = 6
    USER = 7


class PatternType(IntEnum):
    UNKNOWN = 0
    ANY = 1
    MATCH = 2
    LITERAL = 3
    PREFIXED = 4


class Operation(IntEnum):
    UNKNOWN = 0
    ANY = 1
    ALL = 2
    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12
    CREATE_TOKENS = 13
    DESCRIBE_TOKENS = 14
    TWO_PHASE_COMMIT = 15


class Permission(IntEnum):
    UNKNOWN = 0
    ANY = 1
    DENY = 2
    ALLOW = 3


IMPLIES_DESCRIBE = frozenset((Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER))

OPERATIONS_OF: dict[ResourceType, tuple[Operation, ...]] = {
    ResourceType.TOPIC: (
        Operation.READ,
        Operation.WRITE,
        Operation.CREATE,
        Operation.DELETE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.GROUP: (
        Operation.READ,
        Operation.DELETE,
        Operation.DESCRIBE,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
    ),
    ResourceType.CLUSTER: (
        Operation.CREATE,
        Operation.ALTER,
        Operation.DESCRIBE,
        Operation.CLUSTER_ACTION,
        Operation.DESCRIBE_CONFIGS,
        Operation.ALTER_CONFIGS,
        Operation.IDEMPOTENT_WRITE,
    ),
    ResourceType.TRANSACTIONAL_ID: (Operation.WRITE, Operation.DESCRIBE, Operation.TWO_PHASE_COMMIT),
    ResourceType.DELEGATION_TOKEN: (Operation.DESCRIBE,),
    ResourceType.USER: (Operation.CREATE_TOKENS, Operation.DESCRIBE_TOKENS),
}
"""The operations that mean something on each type of resource (Kafka's AclEntry.supportedOperations)."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Acl:
    """One binding. `principal` is `User:name`; `host` an address or `*`."""

    resource_type: ResourceType
    pattern_type: PatternType
    name: str
    principal: str
    host: str
    operation: Operation
    permission: Permission

    def speaks_about(self, resource_type: ResourceType, name: str) -> bool:
        """Whether the pattern covers the resource."""
        if self.resource_type != resource_type:
            return False
        if self.pattern_type == PatternType.PREFIXED:
            return name.startswith(self.name)
        return self.name in (name, WILDCARD)

    def speaks_of(self, principal: str, host: str) -> bool:
        """Whether the binding is about the peer."""
        return self.principal in (principal, ANY_USER) and self.host in (host, WILDCARD)

    def decides(self, operation: Operation) -> bool:
        """Whether the binding says anything about the operation, by implication included."""
        if self.operation in (operation, Operation.ALL):
            return True
        if self.permission != Permission.ALLOW:
            return False
        if operation == Operation.DESCRIBE:
            return self.operation in IMPLIES_DESCRIBE
        return operation == Operation.DESCRIBE_CONFIGS and self.operation == Operation.ALTER_CONFIGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer and why: `rule` is one of super-user, internal-topic, off, deny, allow, default; `by` the ACL that
    decided."""

    allowed: bool
    rule: str
    by: Acl | None = None


def authorize(
    acls: Iterable[Acl],
    *,
    principal: str,
    host: str,
    operation: Operation,
    resource_type: ResourceType,
    name: str,
    super_users: Collection[str] = (),
    allow_if_no_acl: bool = False,
) -> Decision:
    """Decide one request against a set of ACLs, exactly as Kafka's StandardAuthorizer does."""
    if principal in super_users:
        return Decision(allowed=True, rule="super-user")
    allowed_by: Acl | None = None
    any_about_resource = False
    for acl in acls:
        if not acl.speaks_about(resource_type, name):
            continue
        any_about_resource = True
        if not acl.speaks_of(principal, host) or not acl.decides(operation):
            continue
        if acl.permission == Permission.DENY:
            return Decision(allowed=False, rule="deny", by=acl)
        allowed_by = allowed_by or acl
    if allowed_by is not None:
        return Decision(allowed=True, rule="allow", by=allowed_by)
    return Decision(allowed=allow_if_no_acl and not any_about_resource, rule="default")


def authorize_by_resource_type(
    acls: Iterable[Acl],
    *,
    principal: str,
    host: str,
    operation: Operation,
    resource_type: ResourceType,
    super_users: Collection[str] = (),
    allow_if_no_acl: bool = False,
) -> bool:
    """Whether there is at least one resource of the type on which the peer may do the operation (KIP-679).

    An ALLOW counts unless a DENY covers everything it allows: the same literal, a prefix of it, or `*`. As in Kafka
    (Authorizer.authorizeByResourceType) a resource named "hardcode" is tried first, which lets super-users, implied
    operations and the default through.
    """
    acls = list(acls)
    if authorize(
        acls,
        principal=principal,
        host=host,
        operation=operation,
        resource_type=resource_type,
        name="hardcode",
        super_users=super_users,
        allow_if_no_acl=allow_if_no_acl,
    ).allowed:
        return True
    deny_literals: set[str] = set()
    deny_prefixes: set[str] = set()
    allow_literals: set[str] = set()
    allow_prefixes: set[str] = set()
    for acl in acls:
        if acl.resource_type != resource_type or not acl.speaks_of(principal, host):
            continue
        if acl.operation not in (operation, Operation.ALL):
            continue
        prefixed = acl.pattern_type == PatternType.PREFIXED
        if acl.permission == Permission.DENY:
            if not prefixed and acl.name == WILDCARD:
                return False
            (deny_prefixes if prefixed else deny_literals).add(acl.name)
        else:
            (allow_prefixes if prefixed else allow_literals).add(acl.name)
    if WILDCARD in allow_literals:
        return True
    if any(not _has_prefix_in(name, deny_prefixes) for name in allow_prefixes):
        return True
    return any(name not in deny_literals and not _has_prefix_in(name, deny_prefixes) for name in allow_literals)


def _has_prefix_in(name: str, prefixes: set[str]) -> bool:
    return any(name[:length] in prefixes for length in range(1, len(name) + 1))


def is_internal_topic(name: str) -> bool:
    """Whether the topic is one of the product's own, closed to everybody but super-users."""
    return name.startswith(INTERNAL_PREFIX)


class AclIndex:
    """ACLs arranged so that a decision looks at those that speak about the resource and no others."""

    def __init__(self, acls: Iterable[Acl] = ()) -> None:
        self._literal: dict[tuple[ResourceType, str], dict[Acl, None]] = {}
        self._prefixed: dict[tuple[ResourceType, str], dict[Acl, None]] = {}
        self._longest: dict[ResourceType, int] = {}
        self._all: dict[Acl, None] = {}
        for acl in acls:
            self.add(acl)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Acl]:
        return iter(self._all)

    def __contains__(self, acl: object) -> bool:
        return acl in self._all

    def add(self, acl: Acl) -> None:
        self._all[acl] = None
        table = self._prefixed if acl.pattern_type == PatternType.PREFIXED else self._literal
        table.setdefault((acl.resource_type, acl.name), {})[acl] = None
        if acl.pattern_type == PatternType.PREFIXED:
            longest = self._longest.get(acl.resource_type, 0)
            self._longest[acl.resource_type] = max(longest, len(acl.name))

    def discard(self, acl: Acl) -> None:
        if self._all.pop(acl, self) is self:
            return
        table = self._prefixed if acl.pattern_type == PatternType.PREFIXED else self._literal
        place = table[acl.resource_type, acl.name]
        del place[acl]
        if not place:
            del table[acl.resource_type, acl.name]

    def about(self, resource_type: ResourceType, name: str) -> Iterator[Acl]:
        """The ACLs whose patterns cover the resource."""
        yield from self._literal.get((resource_type, name), ())
        if name != WILDCARD:
            yield from self._literal.get((resource_type, WILDCARD), ())
        for length in range(min(len(name), self._longest.get(resource_type, -1)) + 1):
            yield from self._prefixed.get((resource_type, name[:length]), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class AclFilter:
    """Which bindings DescribeAcls and DeleteAcls mean; ANY and None match everything."""

    resource_type: ResourceType = ResourceType.ANY
    pattern_type: PatternType = PatternType.ANY
    name: str | None = None
    principal: str | None = None
    host: str | None = None
    operation: Operation = Operation.ANY
    permission: Permission = Permission.ANY

    def matches(self, acl: Acl) -> bool:
        return (
            self.resource_type in (ResourceType.ANY, acl.resource_type)
            and self._matches_name(acl)
            and self.principal in (None, acl.principal)
            and self.host in (None, acl.host)
            and self.operation in (Operation.ANY, acl.operation)
            and self.permission in (Permission.ANY, acl.permission)
        )

    def _matches_name(self, acl: Acl) -> bool:
        if self.pattern_type not in (PatternType.ANY, PatternType.MATCH, acl.pattern_type):
            return False
        if self.name is None:
            return True
        if self.pattern_type == PatternType.MATCH:
            return acl.speaks_about(acl.resource_type, self.name)
        return self.name == acl.name


@dataclass(slots=True)
class Tally:
    """How often a principal was allowed and denied, and what it was last denied."""

    allowed: int = 0
    denied: int = 0
    last_denied: tuple[Operation, ResourceType, str] | None = None


CACHE_LIMIT = 65_536
TALLY_LIMIT = 1_024


class Authorizer:
    """Decides for the running broker, and for the console's simulator: ACLs, super-users, the internal topics.

    Decisions are remembered until `changed()` says that an ACL did.
    """

    def __init__(
        self,
        acls: AclIndex,
        *,
        super_users: Collection[str] = (),
        always_on: bool = False,
        allow_if_no_acl: bool = False,
    ) -> None:
        self.acls = acls
        self.super_users = frozenset(super_users)
        self.always_on = always_on
        self.allow_if_no_acl = allow_if_no_acl
        self.tallies: dict[str, Tally] = {}
        self._remembered: dict[tuple[str, str, int, int, str], bool] = {}

    @property
    def on(self) -> bool:
        """Whether ACLs decide at all: told so, or there is at least one."""
        return self.always_on or len(self.acls) > 0

    def changed(self) -> None:
        """Forget every decision: the ACLs are others now."""
        self._remembered.clear()

    def allows(
        self, *, principal: str, host: str, operation: Operation, resource_type: ResourceType, name: str
    ) -> bool:
        key = (principal, host, operation, resource_type, name)
        allowed = self._remembered.get(key)
        if allowed is None:
            allowed = self.decide(
                principal=principal, host=host, operation=operation, resource_type=resource_type, name=name
            ).allowed
            if len(self._remembered) >= CACHE_LIMIT:
                self._remembered.clear()
            self._remembered[key] = allowed
        tally = self.tallies.get(principal)
        if tally is None:
            if len(self.tallies) >= TALLY_LIMIT:
                return allowed
            tally = self.tallies[principal] = Tally()
        if allowed:
            tally.allowed += 1
        else:
            tally.denied += 1
            tally.last_denied = (operation, resource_type, name)
        return allowed

    def decide(
        self, *, principal: str, host: str, operation: Operation, resource_type: ResourceType, name: str
    ) -> Decision:
        if principal in self.super_users:
            return Decision(allowed=True, rule="super-user")
        if resource_type == ResourceType.TOPIC and is_internal_topic(name):
            return Decision(allowed=False, rule="internal-topic")
        if not self.on:
            return Decision(allowed=True, rule="off")
        return authorize(
            self.acls.about(resource_type, name),
            principal=principal,
            host=host,
            operation=operation,
            resource_type=resource_type,
            name=name,
            super_users=self.super_users,
            allow_if_no_acl=self.allow_if_no_acl,
        )

    def allows_any(self, *, principal: str, host: str, operation: Operation, resource_type: ResourceType) -> bool:
        """Whether some resource of the type is open to the peer (idempotent producers need any topic, KIP-679)."""
        if not self.on:
            return True
        return authorize_by_resource_type(
            self.acls,
            principal=principal,
            host=host,
            operation=operation,
            resource_type=resource_type,
            super_users=self.super_users,
            allow_if_no_acl=self.allow_if_no_acl,
        )
