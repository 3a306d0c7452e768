"""The audit trail: nothing is changed, removed or lost without it showing."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from console import audit
from console.accounts.models import User
from console.audit.models import Entry, Intent
from console.audit.record import close_abandoned
from console.audit.verify import verify


@pytest.fixture
def entries(account: Callable[..., User]) -> list[Entry]:
    actor = account(name="mei")
    for number in range(5):
        with audit.change(actor, "topic.configure", kind="topic", name="orders", before={"n": number}) as change:
            change.after = {"n": number + 1}
    return list(Entry.objects.order_by("id"))


def test_each_change_is_one_entry_in_an_unbroken_chain(entries: list[Entry]) -> None:
    assert [(one.actor, one.before, one.after, one.outcome) for one in entries] == [
        ("mei", {"n": n}, {"n": n + 1}, "done") for n in range(5)
    ]
    assert (verify().entries, verify().broken_at, verify().reason) == (5, None, "")


def test_the_database_refuses_to_change_or_remove_an_entry(entries: list[Entry]) -> None:
    with pytest.raises(DatabaseError, match="append-only"):
        Entry.objects.filter(pk=entries[2].pk).update(actor="somebody else")
    with pytest.raises(DatabaseError, match="append-only"):
        entries[2].delete()


@pytest.mark.parametrize(
    "harm", ["UPDATE audit_entry SET actor = 'x' WHERE id = {id}", "DELETE FROM audit_entry WHERE id = {id}"]
)
@pytest.mark.parametrize("at", [0, 2, 4])
def test_an_entry_altered_or_removed_behind_its_back_is_found(harm: str, at: int, entries: list[Entry]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER audit_entry_no_update")
        cursor.execute("DROP TRIGGER audit_entry_no_delete")
        cursor.execute(harm.format(id=entries[at].pk))
    assert verify().reason != ""


def test_what_fails_is_recorded_as_failed_and_raised_on(account: Callable[..., User]) -> None:
    with pytest.raises(RuntimeError), audit.change(account(), "topic.delete", kind="topic", name="orders"):
        raise RuntimeError("the broker is on fire")
    entry = Entry.objects.get()
    assert (entry.outcome, entry.detail) == ("failed", "RuntimeError: the broker is on fire")
    assert Intent.objects.count() == 0


def test_a_change_whose_process_died_is_recorded_as_unknown(account: Callable[..., User]) -> None:
    Intent.objects.create(
        started=timezone.now() - timedelta(minutes=10), actor="mei", action="topic.purge", kind="topic", name="orders"
    )
    Intent.objects.create(started=timezone.now(), actor="mei", action="topic.purge", kind="topic", name="still at it")
    assert close_abandoned(timezone.now()) == 1
    entry = Entry.objects.get()
    assert (entry.name, entry.outcome) == ("orders", "unknown")
    assert Intent.objects.get().name == "still at it"
    assert verify().reason == ""


def test_no_broker_call_is_made_inside_a_database_transaction(database: None) -> None:
    from django.db import transaction

    from console import kafka

    with transaction.atomic(), pytest.raises(kafka.InTransaction):
        kafka.admin()
