"""Changes to accounts, each permitted, done and put on record in one place."""

import secrets
from typing import Any

from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils.translation import gettext as _

from console import audit
from console.accounts.models import User
from console.accounts.permissions import Permission, Role, demand


class LastAdministrator(Exception):
    """Nobody else could administer accounts any more."""


class OwnAccount(Exception):
    """Nobody changes their own role or disables themselves: it would be too easy to be locked out."""


class AccountExists(Exception):
    """There is an account of that name."""


def change_own_password(*, actor: User, new: str) -> None:
    """Sets the actor's password. Other sessions of theirs end, since the session hash changes."""
    demand(actor, Permission.SELF)
    with audit.change(actor, "account.password", kind="account", name=actor.username):
        actor.set_password(new)
        actor.save(update_fields=["password"])


def create(*, actor: Any, username: str, role: Role, password: str) -> User:
    demand(actor, Permission.ACCOUNT_MANAGE)
    if User.objects.filter(username=username).exists():
        raise AccountExists(_("There is an account %(name)s already.") % {"name": username})
    with audit.change(actor, "account.create", kind="account", name=username, after={"role": role.value}):
        user = User(username=username, role=role)
        user.set_password(password)
        user.save()
    return user


def change_role(*, actor: Any, account: User, role: Role) -> None:
    """Gives `account` another role; their sockets and pages follow on the next message or request."""
    demand(actor, Permission.ACCOUNT_MANAGE)
    _refuse_own(actor, account)
    before: dict[str, Any] = {"role": account.role}
    with (
        audit.change(
            actor, "account.role", kind="account", name=account.username, before=before, after={"role": role.value}
        ),
        transaction.atomic(),
    ):
        account.role = role
        account.save()
        _refuse_none_left()


def enable(*, actor: Any, account: User, enabled: bool) -> None:
    """A disabled account can't sign in and is signed out everywhere."""
    demand(actor, Permission.ACCOUNT_MANAGE)
    _refuse_own(actor, account)
    action = "account.enable" if enabled else "account.disable"
    before, after = {"enabled": account.is_active}, {"enabled": enabled}
    with (
        audit.change(actor, action, kind="account", name=account.username, before=before, after=after),
        transaction.atomic(),
    ):
        account.is_active = enabled
        account.save(update_fields=["is_active"])
        _refuse_none_left()
        if not enabled:
            end_sessions(account)


def reset_password(*, actor: Any, account: User) -> str:
    """Gives the account a generated password, signs it out everywhere, and returns the password."""
    demand(actor, Permission.ACCOUNT_MANAGE)
    password = generated_password()
    with (
        audit.change(actor, "account.reset-password", kind="account", name=account.username),
        transaction.atomic(),
    ):
        account.set_password(password)
        account.save(update_fields=["password"])
        end_sessions(account)
    return password


def generated_password() -> str:
    return secrets.token_urlsafe(15)


def _refuse_own(actor: Any, account: User) -> None:
    if actor.pk == account.pk:
        raise OwnAccount(_("You can't do this to your own account."))


def _refuse_none_left() -> None:
    if not User.objects.filter(role=Role.ADMIN, is_active=True).exists():
        raise LastAdministrator(_("At least one administrator must be able to sign in."))


def end_sessions(account: User) -> int:
    """Signs `account` out everywhere. Returns how many sessions ended."""
    ended = 0
    for session in Session.objects.iterator():
        if session.get_decoded().get("_auth_user_id") == str(account.pk):
            session.delete()
            ended += 1
    return ended
