"""Changes to accounts, each permitted, done and put on record in one place."""

from typing import Any

from django.contrib.sessions.models import Session
from django.db import transaction

from console import audit
from console.accounts.models import User
from console.accounts.permissions import Permission, Role, demand


def change_own_password(*, actor: User, new: str) -> None:
    """Sets the actor's password. Other sessions of theirs end, since the session hash changes."""
    demand(actor, Permission.SELF)
    with audit.change(actor, "account.password", kind="account", name=actor.username):
        actor.set_password(new)
        actor.save(update_fields=["password"])


def create(*, actor: User, username: str, role: Role, password: str) -> User:
    demand(actor, Permission.ACCOUNT_MANAGE)
    with audit.change(actor, "account.create", kind="account", name=username, after={"role": role.value}):
        user = User(username=username, role=role)
        user.set_password(password)
        user.save()
    return user


def change_role(*, actor: User, account: User, role: Role) -> None:
    """Gives `account` another role; their sockets and pages follow on the next message or request."""
    demand(actor, Permission.ACCOUNT_MANAGE)
    before: dict[str, Any] = {"role": account.role}
    with (
        audit.change(
            actor, "account.role", kind="account", name=account.username, before=before, after={"role": role.value}
        ),
        transaction.atomic(),
    ):
        account.role = role
        account.save()


def end_sessions(account: User) -> int:
    """Signs `account` out everywhere. Returns how many sessions ended."""
    ended = 0
    for session in Session.objects.iterator():
        if session.get_decoded().get("_auth_user_id") == str(account.pk):
            session.delete()
            ended += 1
    return ended
