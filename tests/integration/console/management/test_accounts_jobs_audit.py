"""Administrators look after accounts; jobs and the audit trail have pages."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from console import audit
from console.accounts import actions
from console.accounts.models import User
from console.accounts.permissions import PermissionRefused, Role
from console.audit.models import Entry
from console.audit.verify import verify
from console.jobs.models import Job

HTMX = {"HX-Request": "true"}


def test_an_account_is_made_with_a_password_shown_once_and_signs_in(db: None, as_admin: Client) -> None:
    answer = as_admin.post(reverse("console:account-create"), {"username": "li.na", "role": "operator"}, headers=HTMX)
    password = answer.context["secret"]
    made = User.objects.get(username="li.na")
    assert made.role == Role.OPERATOR
    assert not made.is_staff
    assert made.check_password(password)
    assert password not in json.dumps(list(Entry.objects.values("before", "after", "detail")))


def test_a_role_is_changed_and_takes_hold_at_the_next_request(
    db: None, as_admin: Client, as_operator: Client, operator: User
) -> None:
    assert as_operator.get(reverse("console:audit-list")).status_code == 200
    as_admin.post(reverse("console:account-role", args=[operator.pk]), {"role": "viewer"})
    assert as_operator.get(reverse("console:audit-list")).status_code == 403
    entry = Entry.objects.get(action="account.role")
    assert (entry.before, entry.after) == ({"role": "operator"}, {"role": "viewer"})


def test_disabling_and_resetting_end_every_session(
    db: None, as_admin: Client, as_operator: Client, as_viewer: Client, operator: User, viewer: User
) -> None:
    as_admin.post(reverse("console:account-disable", args=[operator.pk]), {"typed": operator.username})
    assert as_operator.get(reverse("console:job-list")).status_code == 302
    answer = as_admin.post(reverse("console:account-reset", args=[viewer.pk]), headers=HTMX)
    assert as_viewer.get(reverse("console:job-list")).status_code == 302
    viewer.refresh_from_db()
    assert viewer.check_password(answer.context["secret"])
    as_admin.post(reverse("console:account-enable", args=[operator.pk]))
    operator.refresh_from_db()
    assert operator.is_active


def test_nobody_locks_themselves_out(db: None, admin: User, as_admin: Client) -> None:
    with pytest.raises(actions.OwnAccount):
        actions.change_role(actor=admin, account=admin, role=Role.VIEWER)
    answer = as_admin.post(reverse("console:account-disable", args=[admin.pk]), {"typed": admin.username})
    assert answer.status_code == 422
    with pytest.raises(actions.LastAdministrator):
        actions.change_role(actor=audit.system("test"), account=admin, role=Role.VIEWER)
    admin.refresh_from_db()
    assert (admin.role, admin.is_active) == (Role.ADMIN, True)


def test_an_administrator_can_become_less(db: None, admin: User, as_admin: Client) -> None:
    other = User.objects.create_superuser("second", password="a password of some length")
    assert other.role == Role.ADMIN
    as_admin.post(reverse("console:account-role", args=[other.pk]), {"role": "viewer"})
    other.refresh_from_db()
    assert (other.role, other.is_staff, other.is_superuser) == (Role.VIEWER, False, False)


def test_only_administrators_see_accounts(db: None, operator: User, as_operator: Client, as_viewer: Client) -> None:
    assert as_operator.get(reverse("console:account-list")).status_code == 403
    assert as_viewer.get(reverse("console:account-list")).status_code == 403
    with pytest.raises(PermissionRefused):
        actions.reset_password(actor=operator, account=operator)


def job(**fields: object) -> Job:
    return Job.objects.create(  # type: ignore[misc]  # fields of a Job
        **{"kind": "redrive", "title": "dlq.orders", "actor_name": "li", "created": timezone.now(), **fields}
    )


def test_a_job_shows_its_progress_and_asks_again_until_it_is_finished(db: None, as_viewer: Client) -> None:
    running = job(state="running", done=30, failed=2, total=64, params={"topic": "<b>x</b>"})
    page = as_viewer.get(reverse("console:job", args=[running.pk])).content.decode()
    assert "every 1s" in page
    assert "<b>x</b>" not in page
    assert "50 %" in as_viewer.get(reverse("console:job-list")).content.decode()
    Job.objects.update(state="done", done=64)
    part = as_viewer.get(reverse("console:job", args=[running.pk]), headers=HTMX).content.decode()
    assert "every 1s" not in part
    assert "<html" not in part


def test_an_operator_cancels_a_job_and_a_viewer_does_not(db: None, as_operator: Client, as_viewer: Client) -> None:
    queued = job()
    assert as_viewer.post(reverse("console:job-cancel", args=[queued.pk])).status_code == 403
    as_operator.post(reverse("console:job-cancel", args=[queued.pk]))
    queued.refresh_from_db()
    assert (queued.state, queued.cancel_requested) == ("cancelled", True)
    assert Entry.objects.get(action="job.cancel").name == str(queued.pk)


def test_an_audit_entry_shows_before_and_after_as_text(db: None, admin: User, as_operator: Client) -> None:
    with audit.change(
        admin,
        "topic.configure",
        kind="topic",
        name="<script>x</script>",
        before={"retention.ms": "1"},
        after={"retention.ms": "<b>2</b>"},
    ):
        pass
    entry = Entry.objects.get()
    page = as_operator.get(reverse("console:audit-entry", args=[entry.pk])).content.decode()
    assert "&lt;b&gt;2&lt;/b&gt;" in page
    assert "<script>x" not in page
    assert "retention.ms" in page
    listing = as_operator.get(reverse("console:audit-list"), {"q": "the-admin configure", "kind": "topic"})
    assert [row.pk for row in listing.context["list"].rows] == [entry.pk]
    assert as_operator.get(reverse("console:audit-list"), {"kind": "device"}).context["list"].rows == []


def test_a_viewer_does_not_see_the_audit_trail(db: None, as_viewer: Client) -> None:
    assert as_viewer.get(reverse("console:audit-list")).status_code == 403


def test_verifying_the_chain_finds_an_entry_that_was_altered_around_the_code(db: None, admin: User) -> None:
    for name in ("a", "b", "c"):
        with audit.change(admin, "topic.create", kind="topic", name=name):
            pass
    said = StringIO()
    call_command("audit", "verify", stdout=said)
    assert "3 entries, the chain holds" in said.getvalue()
    victim = Entry.objects.get(name="b")
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_entry'")
        for (trigger,) in cursor.fetchall():
            cursor.execute(f'DROP TRIGGER "{trigger}"')
        cursor.execute("UPDATE audit_entry SET actor = 'somebody' WHERE id = %s", [victim.pk])
    assert verify().broken_at == victim.pk
    with pytest.raises(CommandError, match=f"entry {victim.pk}"):
        call_command("audit", "verify")
