"""The table of roles."""

from dataclasses import dataclass

import pytest

from console.accounts.permissions import GRANTS, Permission, PermissionRefused, Role, demand, holds


@dataclass
class Somebody:
    role: str
    is_active: bool = True


def test_each_role_holds_what_the_lesser_one_holds() -> None:
    assert GRANTS[Role.VIEWER] < GRANTS[Role.OPERATOR] < GRANTS[Role.ADMIN]
    assert GRANTS[Role.ADMIN] == set(Permission)


def test_a_viewer_changes_nothing() -> None:
    reading = {Permission.SELF, Permission.VIEW, Permission.MESSAGE_READ}
    assert reading >= GRANTS[Role.VIEWER]


@pytest.mark.parametrize("actor", [None, Somebody("admin", is_active=False), Somebody(""), Somebody("root")])
def test_nobody_inactive_or_of_an_unknown_role_holds_anything(actor: Somebody | None) -> None:
    assert not any(holds(actor, permission) for permission in Permission)
    with pytest.raises(PermissionRefused):
        demand(actor, Permission.VIEW)
