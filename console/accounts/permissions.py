"""Who may do what: one table from role to permissions, and the decorator that puts a view behind one.

Pure but for `requires`. A view without a permission is refused by a test that walks every URL.
"""

import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Concatenate, ParamSpec, Protocol

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

P = ParamSpec("P")


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


ROLE_LABELS = {Role.VIEWER: _("Viewer"), Role.OPERATOR: _("Operator"), Role.ADMIN: _("Administrator")}


class Permission(StrEnum):
    SELF = "self"  # one's own session and preferences
    VIEW = "view"  # every list, page, chart and live number without message contents
    MESSAGE_READ = "message.read"
    MESSAGE_WRITE = "message.write"
    TOPIC_CREATE = "topic.create"
    TOPIC_CONFIGURE = "topic.configure"
    TOPIC_PURGE = "topic.purge"
    TOPIC_DELETE = "topic.delete"
    GROUP_RESET = "group.reset"
    GROUP_DELETE = "group.delete"
    DEADLETTER_REDRIVE = "deadletter.redrive"
    DEADLETTER_DELETE = "deadletter.delete"
    DELIVERY_CANCEL = "delivery.cancel"
    DEVICE_MANAGE = "device.manage"
    DEVICE_TAP = "device.tap"  # one device's packets, payloads included
    ROUTE_MANAGE = "route.manage"
    BRIDGE_MANAGE = "bridge.manage"
    POLICY_MANAGE = "policy.manage"
    JOB_CONTROL = "job.control"
    ACCESS_VIEW = "access.view"  # broker users, ACLs, quotas
    ACCESS_MANAGE = "access.manage"
    AUDIT_VIEW = "audit.view"
    ACCOUNT_MANAGE = "account.manage"


_VIEWER = frozenset({Permission.SELF, Permission.VIEW, Permission.MESSAGE_READ})
_OPERATOR = _VIEWER | {
    Permission.MESSAGE_WRITE,
    Permission.TOPIC_CREATE,
    Permission.TOPIC_CONFIGURE,
    Permission.GROUP_RESET,
    Permission.DEADLETTER_REDRIVE,
    Permission.DELIVERY_CANCEL,
    Permission.DEVICE_MANAGE,
    Permission.DEVICE_TAP,
    Permission.JOB_CONTROL,
    Permission.ACCESS_VIEW,
    Permission.AUDIT_VIEW,
}
GRANTS: dict[Role, frozenset[Permission]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: frozenset(_OPERATOR),
    Role.ADMIN: frozenset(Permission),
}


class Actor(Protocol):
    """Whoever acts: a user, or a process that acts for one."""

    @property
    def role(self) -> str: ...
    @property
    def is_active(self) -> bool: ...


class PermissionRefused(Exception):
    """The role of whoever asked doesn't hold the permission."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(f"needs {permission.value}")
        self.permission = permission


def holds(actor: Actor | None, permission: Permission) -> bool:
    if actor is None or not actor.is_active or actor.role not in GRANTS:
        return False
    return permission in GRANTS[Role(actor.role)]


def demand(actor: Actor | None, permission: Permission) -> None:
    """Raises PermissionRefused unless `actor` holds `permission`. Every action calls it first."""
    if not holds(actor, permission):
        raise PermissionRefused(permission)


View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def requires(permission: Permission) -> Callable[[View[P]], View[P]]:
    """Puts a view behind `permission`; `view.permission` is what the test that walks the URLs reads."""

    def decorate(view: View[P]) -> View[P]:
        @functools.wraps(view)
        def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            user: Any = request.user
            demand(user if user.is_authenticated else None, permission)
            return view(request, *args, **kwargs)

        guarded.permission = permission  # type: ignore[attr-defined]  # read by the URL walk
        return guarded

    return decorate
