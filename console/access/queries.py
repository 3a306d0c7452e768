"""What access pages show: users and ACLs as the broker has them, one call each, under the page's deadline."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from console import deadline, kafka, snapshot
from console.access.rules import Regime
from console.kafka import types

NO_AUTHORIZER = "SECURITY_DISABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    name: str
    mechanisms: tuple[str, ...]
    acls: int | None  # that name this user

    @property
    def principal(self) -> str:
        return f"User:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """`missing` says what the broker didn't tell; `acls` is None when unknown."""

    users: Sequence[UserRow]
    acls: Sequence[types.Acl] | None
    regime: Regime
    missing: Mapping[str, str]


def access(*, users: bool = True) -> Access:
    """Asks the broker for users and ACLs side by side."""
    calls: dict[str, Callable[[], Any]] = {"acls": lambda: kafka.admin().acls(), "regime": regime}
    if users:
        calls["users"] = lambda: kafka.admin().users()
    answers = deadline.gather(calls)
    acls = None if answers["acls"] is None else [acl for acl in answers["acls"] if not _ours(acl.principal)]
    counts = Counter(acl.principal for acl in acls or ())
    rows = [
        UserRow(
            name=user.name,
            mechanisms=tuple(credential.mechanism.label for credential in user.credentials),
            acls=None if acls is None else counts[f"User:{user.name}"],
        )
        for user in answers["users"] or ()
        if user.credentials and not user.name.startswith("__")
    ]
    return Access(users=rows, acls=acls, regime=answers["regime"] or Regime(certain=False), missing=answers.missing)


def regime() -> Regime:
    """How the cluster decides beside its ACLs: the embedded broker's is known, a Kafka's is read where it tells."""
    ours = settings.SLUICE
    if not ours.kafka:
        return Regime(always_on=ours.acls_always_on, super_users=ours.super_users)
    picture = snapshot.current()
    controller = picture.cluster.controller if picture.cluster.controller >= 0 else kafka.admin().cluster().controller
    resource = types.ConfigResource(types.ConfigKind.BROKER, str(controller))
    entries = {entry.name: entry.value for entry in kafka.admin().configs([resource]).get(resource, ())}
    everyone = entries.get("allow.everyone.if.no.acl.found")
    return Regime(always_on=True, allow_if_no_acl=everyone == "true", certain=everyone is not None)


def _ours(principal: str) -> bool:
    return principal.startswith("User:__")
