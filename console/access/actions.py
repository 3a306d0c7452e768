"""Changes to broker users and ACLs: permission, broker call, record, announcement."""

import secrets
from collections.abc import Sequence
from typing import Any

from django.utils.translation import gettext as _

from console import announcements, audit, kafka
from console.access.rules import record
from console.accounts.permissions import Permission, demand
from console.kafka import types

PASSWORD_BYTES = 24


class UserExists(Exception):
    """There is a user of that name; rotating gives it a new password."""


class UnknownUser(Exception):
    """There is no user of that name."""


class InternalUser(Exception):
    """The user is Sluice's own."""


def create_user(*, actor: Any, name: str, mechanisms: Sequence[types.Scram]) -> str:
    """Creates a user that signs in by each of `mechanisms`. Returns its generated password, which is kept nowhere."""
    demand(actor, Permission.ACCESS_MANAGE)
    _refuse_internal(name)
    if _user(name) is not None:
        raise UserExists(_("There is a user %(name)s already.") % {"name": name})
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    after = {"mechanisms": [mechanism.label for mechanism in mechanisms]}
    with audit.change(actor, "user.create", kind="user", name=name, after=after):
        for mechanism in mechanisms:
            kafka.admin().put_user(name, password, mechanism)
    announcements.changed("user", name)
    return password


def rotate_user(*, actor: Any, name: str) -> str:
    """Gives the user a new password for every mechanism it has. Returns the password; the old one ends at once."""
    demand(actor, Permission.ACCESS_MANAGE)
    _refuse_internal(name)
    user = _known(name)
    password = secrets.token_urlsafe(PASSWORD_BYTES)
    mechanisms = [credential.mechanism.label for credential in user.credentials]
    with audit.change(actor, "user.rotate", kind="user", name=name, after={"mechanisms": mechanisms}):
        for credential in user.credentials:
            kafka.admin().put_user(name, password, credential.mechanism)
    announcements.changed("user", name)
    return password


def revoke_user(*, actor: Any, name: str, with_acls: bool = False) -> None:
    """Takes the user's credentials away, and its ACLs too if asked."""
    demand(actor, Permission.ACCESS_MANAGE)
    _refuse_internal(name)
    user = _known(name)
    before: dict[str, Any] = {"mechanisms": [credential.mechanism.label for credential in user.credentials]}
    matching = types.AclFilter(principal=f"User:{name}")
    if with_acls:
        before["acls"] = [record(acl) for acl in kafka.admin().acls(matching)]
    with audit.change(actor, "user.revoke", kind="user", name=name, before=before):
        for credential in user.credentials:
            kafka.admin().delete_user(name, credential.mechanism)
        if with_acls:
            kafka.admin().delete_acls([matching])
    announcements.changed("user", name)


def create_acls(*, actor: Any, acls: Sequence[types.Acl]) -> None:
    demand(actor, Permission.ACCESS_MANAGE)
    for acl in acls:
        with audit.change(actor, "acl.create", kind="acl", name=acl.principal, after=record(acl)):
            kafka.admin().create_acls([acl])
        announcements.changed("acl", acl.principal)


def delete_acl(*, actor: Any, acl: types.Acl) -> bool:
    """Deletes exactly this ACL. Returns whether it was there."""
    demand(actor, Permission.ACCESS_MANAGE)
    matching = types.AclFilter(
        resource=acl.resource,
        name=acl.name,
        pattern=acl.pattern,
        principal=acl.principal,
        host=acl.host,
        operation=acl.operation,
        permission=acl.permission,
    )
    with audit.change(actor, "acl.delete", kind="acl", name=acl.principal, before=record(acl)) as change:
        gone = kafka.admin().delete_acls([matching])
        if not gone:
            change.detail = "it was not there"
    announcements.changed("acl", acl.principal)
    return bool(gone)


def _user(name: str) -> types.User | None:
    return next((user for user in kafka.admin().users([name]) if user.credentials), None)


def _known(name: str) -> types.User:
    user = _user(name)
    if user is None:
        raise UnknownUser(_("There is no user %(name)s.") % {"name": name})
    return user


def _refuse_internal(name: str) -> None:
    if name.startswith("__"):
        raise InternalUser(_("Users that begin with __ are Sluice's own and are not changed here."))
