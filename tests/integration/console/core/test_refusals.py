"""Every address and socket message refuses what a role may not do. The list is the code's own, not this file's."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from console.accounts.permissions import GRANTS, Permission, Role
from console.live import consumer, tap

PUBLIC = {"console:sign-in", "console:language"}
OPEN_TO_ALL = {"admin:login", "admin:logout", "admin:jsi18n"}
WORDS = {"name": "some-name", "partition": "0", "offset": "0", "pk": "1"}


def patterns(resolver: URLResolver, prefix: str = "", namespace: str = "") -> Iterator[tuple[str, str, Any]]:
    """(path, name, view) of every pattern."""
    for entry in resolver.url_patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from patterns(entry, path, inner)
        elif isinstance(entry, URLPattern):
            yield path, f"{namespace}{entry.name}", entry.callback


def own_patterns() -> list[tuple[str, str, Any]]:
    return [one for one in patterns(get_resolver()) if one[1].startswith("console:")]


def filled(path: str) -> str:
    """The path with something in the place of its parameters."""
    parts = []
    for part in path.split("/"):
        if part.startswith("<"):
            kind, _, name = part.strip("<>").rpartition(":")
            parts.append(
                "7"
                if kind == "int"
                else "0" * 8 + "-0000-4000-8000-" + "0" * 12
                if kind == "uuid"
                else WORDS.get(name, "x")
            )
        else:
            parts.append(part)
    return "/" + "/".join(parts)


def test_every_view_says_which_permission_it_needs() -> None:
    bare = [name for _, name, view in own_patterns() if name not in PUBLIC and not hasattr(view, "permission")]
    assert bare == []
    assert len(own_patterns()) > 20


@pytest.mark.parametrize("method", ["get", "post"])
def test_nobody_gets_past_the_door_without_signing_in(method: str, database: None) -> None:
    for path, name, _ in own_patterns():
        if name in PUBLIC:
            continue
        answer = getattr(Client(), method)(filled(path))
        assert answer.status_code == 302, name
        assert answer["Location"].startswith("/sign-in/"), name


@pytest.mark.parametrize("role", list(Role))
def test_every_view_refuses_a_role_that_lacks_its_permission(role: Role, signed_in: Callable[..., Client]) -> None:
    client = signed_in(role)
    refused = 0
    for path, name, view in own_patterns():
        if name in PUBLIC or view.permission in GRANTS[role]:
            continue
        for method in ("get", "post"):
            answer = getattr(client, method)(filled(path))
            assert answer.status_code == 403, f"{name} lets {role} {method}"
            refused += 1
    if role is Role.VIEWER:
        assert refused >= 10


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
def test_django_admin_is_for_administrators(role: Role, signed_in: Callable[..., Client]) -> None:
    client = signed_in(role)
    for path, name, _ in patterns(get_resolver()):
        if not name.startswith("admin:") or name in OPEN_TO_ALL or "<" in path or "(?P" in path:
            continue
        answer = client.get("/" + path)
        assert answer.status_code in (302, 403), name
        if answer.status_code == 302:
            assert "login" in answer["Location"], name


def test_every_socket_message_names_a_permission() -> None:
    for permissions in (consumer.PERMISSIONS, tap.PERMISSIONS):
        assert permissions
        assert set(permissions.values()) <= set(Permission)


def test_every_action_demands_a_permission_before_anything_else() -> None:
    """`actions.<verb>(*, actor, …)`: the first statement after the docstring is `demand(actor, …)`."""
    import ast
    from pathlib import Path

    import console

    checked = 0
    for path in sorted(Path(console.__file__).parent.glob("*/actions.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or "actor" not in {arg.arg for arg in node.args.kwonlyargs}:
                continue
            if node.name.startswith("_"):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert ast.unparse(body[0]).startswith("demand(actor,"), f"{path.parent.name}.{node.name}"
            checked += 1
    assert checked >= 8
