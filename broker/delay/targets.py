"""Which topics may be delivered to, as the cluster stands.

The service writes with the product's own rights, so the right to ask for a delivery would be the right to write
anything if it didn't decide for itself. Kafka's records don't say who produced them; so the question is not who asked
but what may be reached by asking:

- never internal topics (`__…`) nor `sluice.delay` itself (see `broker.client.delaying`);
- while the cluster has no ACLs at all: any other topic that exists;
- once it has any: topics on which `User:sluice.delay` may WRITE. An operator opens a topic for delayed delivery by an
  ACL for that principal, and everybody who may write to `sluice.delay` can reach it then, and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from broker.client import Admin
from broker.client.administration.types import Acl, Operation, Pattern, Permission, ResourceType
from broker.client.delaying import PRINCIPAL, Refused, misnamed
from broker.client.errors import ClusterError, UnsupportedByCluster

KEPT_SECONDS = 5.0
ASK_AGAIN_SECONDS = 0.5
SECURITY_DISABLED = 54


class Targets:
    """Kept for some seconds; may be shared between threads. Raises ClientError while the cluster can't be asked."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._topics: frozenset[str] = frozenset()
        self._acls: tuple[Acl, ...] = ()

    def denied(self, target: str) -> Refused | None:
        """Why nothing may be delivered to this topic, whether it exists or not."""
        wrong = misnamed(target)
        if wrong:
            return Refused(reason="target", detail=wrong)
        self._refresh(KEPT_SECONDS)
        if may_write(self._acls, target):
            return None
        detail = f"{PRINCIPAL} is not allowed to write to {target}; an ACL for it would open the topic to deliveries"
        return Refused(reason="denied", detail=detail)

    def refusal(self, target: str) -> Refused | None:
        """Why a record can't go there now."""
        denied = self.denied(target)
        if denied is not None:
            return denied
        if target not in self._topics:
            self._refresh(ASK_AGAIN_SECONDS)
        if target not in self._topics:
            return Refused(reason="target", detail=f"there is no topic {target}")
        return None

    def _refresh(self, kept: float) -> None:
        with self._lock:
            if time.monotonic() - self._read_at < kept:
                return
            topics = frozenset(self._admin.topics())
            self._acls = _acls(self._admin)
            self._topics = topics
            self._read_at = time.monotonic()


def _acls(admin: Admin) -> tuple[Acl, ...]:
    try:
        return admin.acls()
    except UnsupportedByCluster:
        return ()
    except ClusterError as error:
        if error.code == SECURITY_DISABLED:
            return ()
        raise


def may_write(acls: Iterable[Acl], topic: str) -> bool:
    """Whether these rules let `User:sluice.delay` write to the topic; without any rule everything is open. A refusal
    counts from whatever address, a permission only when it is for every address: the service may run anywhere."""
    rules = tuple(acls)
    if not rules:
        return True
    speaking = [
        rule
        for rule in rules
        if rule.resource is ResourceType.TOPIC
        and rule.principal in (PRINCIPAL, "User:*")
        and rule.operation in (Operation.WRITE, Operation.ALL)
        and _covers(rule, topic)
    ]
    if any(rule.permission is Permission.DENY for rule in speaking):
        return False
    return any(rule.permission is Permission.ALLOW and rule.host == "*" for rule in speaking)


def _covers(rule: Acl, topic: str) -> bool:
    if rule.pattern is Pattern.PREFIXED:
        return topic.startswith(rule.name)
    return rule.name in (topic, "*")
