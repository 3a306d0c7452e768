"""Broker users and ACLs as the console manages them, against a real broker."""

from __future__ import annotations

import uuid

import pytest
from django.test import Client
from django.urls import reverse

from console import kafka
from console.access import actions, rules
from console.accounts.models import User
from console.accounts.permissions import PermissionRefused
from console.audit.models import Entry
from console.kafka import types

from .conftest import Broker


def named(text: str) -> str:
    return f"{text}-{uuid.uuid4().hex[:8]}"


def acl(name: str, principal: str, **other: object) -> types.Acl:
    fields: dict[str, object] = {
        "resource": types.ResourceType.TOPIC,
        "name": name,
        "pattern": types.Pattern.LITERAL,
        "principal": principal,
        "host": "*",
        "operation": types.Operation.READ,
        "permission": types.Permission.ALLOW,
    }
    return types.Acl(**{**fields, **other})  # type: ignore[arg-type]  # fields of an Acl


def signs_in(broker: Broker, name: str, password: str, mechanism: str) -> bool:
    """Whether the broker takes the credential."""
    settings = kafka.Settings(
        bootstrap=broker.sasl_address,
        security="SASL_PLAINTEXT",
        mechanism=mechanism,
        username=name,
        password=password,
    )
    with kafka.Admin(settings, timeout=60.0) as admin:
        try:
            admin.cluster()
        except kafka.ClientError:
            return False
    return True


def test_a_created_user_signs_in_with_the_password_that_was_shown_and_not_with_an_older_one(
    broker: Broker, as_admin: Client
) -> None:
    name = named("billing")
    answer = as_admin.post(
        reverse("console:user-create"), {"name": name, "mechanism": "2"}, headers={"HX-Request": "true"}
    )
    shown = answer.context["secret"]
    assert shown in answer.content.decode()
    assert signs_in(broker, name, shown, "SCRAM-SHA-512")
    answer = as_admin.post(reverse("console:user-rotate", args=[name]), headers={"HX-Request": "true"})
    newer = answer.context["secret"]
    assert newer != shown
    assert signs_in(broker, name, newer, "SCRAM-SHA-512")
    assert not signs_in(broker, name, shown, "SCRAM-SHA-512")
    as_admin.post(reverse("console:user-revoke", args=[name]), {"typed": name})
    assert not signs_in(broker, name, newer, "SCRAM-SHA-512")
    entries = Entry.objects.filter(kind="user", name=name).order_by("id")
    assert [(entry.action, entry.outcome) for entry in entries] == [
        ("user.create", "done"),
        ("user.rotate", "done"),
        ("user.revoke", "done"),
    ]
    assert not any(secret in str(vars(entry)) for entry in entries for secret in (shown, newer))


def test_a_user_is_revoked_only_once_its_name_is_typed(broker: Broker, as_admin: Client, admin: User) -> None:
    name = named("careful")
    actions.create_user(actor=admin, name=name, mechanisms=[types.Scram.SHA_256])
    answer = as_admin.post(reverse("console:user-revoke", args=[name]), {"typed": "another"})
    assert answer.status_code == 422
    assert kafka.admin().users([name])[0].credentials


def test_revoking_a_user_takes_its_acls_along_when_asked(broker: Broker, admin: User) -> None:
    name = named("leaver")
    actions.create_user(actor=admin, name=name, mechanisms=[types.Scram.SHA_512])
    actions.create_acls(actor=admin, acls=[acl("orders", f"User:{name}")])
    actions.revoke_user(actor=admin, name=name, with_acls=True)
    assert kafka.admin().acls(types.AclFilter(principal=f"User:{name}")) == ()


def test_a_second_user_of_the_same_name_is_refused_and_the_first_keeps_its_password(
    broker: Broker, admin: User
) -> None:
    name = named("twin")
    password = actions.create_user(actor=admin, name=name, mechanisms=[types.Scram.SHA_512])
    with pytest.raises(actions.UserExists):
        actions.create_user(actor=admin, name=name, mechanisms=[types.Scram.SHA_512])
    assert signs_in(broker, name, password, "SCRAM-SHA-512")


def test_an_acl_is_created_listed_and_deleted_exactly(broker: Broker, as_admin: Client, admin: User) -> None:
    name, topic = named("reader"), named("orders")
    fields = {
        "principal": name,
        "operation": int(types.Operation.READ),
        "resource": int(types.ResourceType.TOPIC),
        "name": topic,
        "pattern": int(types.Pattern.LITERAL),
        "permission": int(types.Permission.ALLOW),
        "host": "",
    }
    assert as_admin.post(reverse("console:acl-create"), fields).status_code == 302
    other = acl(topic, f"User:{name}", operation=types.Operation.WRITE)
    actions.create_acls(actor=admin, acls=[other])
    page = as_admin.get(reverse("console:acl-list"), {"q": f"{name} read"}).content.decode()
    assert topic in page
    one = acl(topic, f"User:{name}")
    answer = as_admin.post(reverse("console:acl-delete", args=[rules.token(one)]), {"typed": topic})
    assert answer.status_code == 302
    assert kafka.admin().acls(types.AclFilter(principal=f"User:{name}")) == (other,)
    actions.delete_acl(actor=admin, acl=other)


def test_the_question_names_the_acl_that_decided(broker: Broker, as_operator: Client, admin: User) -> None:
    name, topic = named("asked"), named("orders")
    allow = acl(topic, f"User:{name}")
    deny = acl(topic, f"User:{name}", permission=types.Permission.DENY, operation=types.Operation.WRITE)
    actions.create_acls(actor=admin, acls=[allow, deny])
    asked = {"principal": name, "resource": 2, "name": topic}
    try:
        read = as_operator.get(reverse("console:acl-may"), {**asked, "operation": int(types.Operation.READ)})
        write = as_operator.get(reverse("console:acl-may"), {**asked, "operation": int(types.Operation.WRITE)})
        delete = as_operator.get(reverse("console:acl-may"), {**asked, "operation": int(types.Operation.DELETE)})
    finally:
        for one in (allow, deny):
            actions.delete_acl(actor=admin, acl=one)
    assert (read.context["answer"].allowed, read.context["answer"].by) == (True, allow)
    assert (write.context["answer"].allowed, write.context["answer"].by) == (False, deny)
    assert (delete.context["answer"].allowed, delete.context["answer"].rule) == (False, "default")


def test_hostile_names_in_acls_are_shown_as_text(broker: Broker, as_admin: Client, admin: User) -> None:
    one = acl("<script>alert(1)</script>", "User:<img src=x onerror=alert(1)>", resource=types.ResourceType.GROUP)
    actions.create_acls(actor=admin, acls=[one])
    try:
        page = as_admin.get(reverse("console:acl-list")).content.decode()
        may = as_admin.get(
            reverse("console:acl-may"), {"principal": one.principal, "resource": 3, "name": one.name, "operation": 3}
        ).content.decode()
    finally:
        actions.delete_acl(actor=admin, acl=one)
    for text in (page, may):
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text


def test_who_may_not_manage_access_is_refused_before_the_broker_is_asked(
    no_broker: None, operator: User, viewer: User, as_viewer: Client, as_operator: Client
) -> None:
    for actor in (operator, viewer):
        with pytest.raises(PermissionRefused):
            actions.create_user(actor=actor, name="x", mechanisms=[types.Scram.SHA_512])
        with pytest.raises(PermissionRefused):
            actions.delete_acl(actor=actor, acl=acl("x", "User:x"))
    assert as_viewer.get(reverse("console:acl-list")).status_code == 403
    assert as_operator.post(reverse("console:user-create"), {"name": "x", "mechanism": "2"}).status_code == 403


def test_pages_say_what_is_missing_while_the_broker_is_away(no_broker: None, as_admin: Client) -> None:
    answer = as_admin.get(reverse("console:user-list"))
    assert answer.status_code in (200, 503)
    assert "broker" in answer.content.decode()
