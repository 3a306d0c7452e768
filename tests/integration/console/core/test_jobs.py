"""The job kernel: one holder at a time, resumed where it stopped, cancelled when asked, never lost."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from console import jobs
from console.accounts.models import User
from console.accounts.permissions import Permission, Role
from console.jobs import kernel
from console.jobs.models import Job


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Wake-ups that were sent."""
    woken: list[str] = []
    monkeypatch.setattr(kernel, "wake", lambda job_id: woken.append(str(job_id)))
    return woken


@pytest.fixture
def runner() -> Iterator[Callable[[Callable[[jobs.Lease], None]], None]]:
    """Registers the runner of the kind "test" for one test."""

    def use(function: Callable[[jobs.Lease], None]) -> None:
        jobs.runner("test", Permission.JOB_CONTROL)(function)

    yield use
    kernel._runners.pop("test", None)


def started(account: Callable[..., User], **fields: Any) -> Job:
    return jobs.start(actor=account(), kind="test", title="a test", params={"count": 10}, **fields)  # type: ignore[no-any-return]  # the kernel knows no models


@pytest.mark.usefixtures("sent")
def test_a_job_runs_to_its_end_and_runs_once(account: Callable[..., User], runner: Any) -> None:
    ran: list[int] = []

    def work(lease: jobs.Lease) -> None:
        for number in range(lease.params["count"]):
            ran.append(number)
            lease.save(cursor=number + 1, done=number + 1, total=10)

    runner(work)
    job = started(account)
    kernel.execute(job.pk)
    kernel.execute(job.pk)
    job.refresh_from_db()
    assert ran == list(range(10))
    assert (job.state, job.done, job.percent, job.lease) == ("done", 10, 100, "")


def test_a_worker_that_died_is_followed_by_one_that_goes_on_at_the_cursor(
    account: Callable[..., User], runner: Any, sent: list[str]
) -> None:
    ran: list[int] = []

    def work(lease: jobs.Lease) -> None:
        for number in range(lease.cursor or 0, 10):
            if number == 6 and len(ran) < 7:
                raise SystemExit  # as kill -9: nothing is written any more
            ran.append(number)
            lease.save(cursor=number + 1, done=number + 1)

    runner(work)
    job = started(account)
    with pytest.raises(SystemExit):
        kernel.execute(job.pk)
    Job.objects.filter(pk=job.pk).update(state="running", lease="dead", finished=None)
    sent.clear()
    assert kernel.reap() == 0, "its lease still runs"
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert kernel.reap() == 1
    assert sent == [str(job.pk)]
    ran.append(-1)
    kernel.execute(job.pk)
    job.refresh_from_db()
    assert ran == [0, 1, 2, 3, 4, 5, -1, 6, 7, 8, 9]
    assert (job.state, job.attempts) == ("done", 2)


@pytest.mark.usefixtures("sent")
def test_only_one_worker_holds_a_job_and_the_one_that_lost_it_writes_nothing(
    account: Callable[..., User], runner: Any
) -> None:
    job = started(account)
    first = kernel.take(job.pk)
    assert first is not None
    assert kernel.take(job.pk) is None
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    second = kernel.take(job.pk)
    assert second is not None
    with pytest.raises(jobs.LeaseLost):
        first.save(done=99)
    second.save(done=1)
    job.refresh_from_db()
    assert job.done == 1


@pytest.mark.usefixtures("sent")
def test_a_running_job_stops_when_somebody_cancels_it(account: Callable[..., User], runner: Any) -> None:
    ran: list[int] = []

    def work(lease: jobs.Lease) -> None:
        for number in range(10):
            ran.append(number)
            if number == 3:
                jobs.cancel(actor=operator, job=Job.objects.get(pk=lease.job_id))
            lease.save(cursor=number + 1, done=number + 1)

    operator = account()
    runner(work)
    job = started(account)
    kernel.execute(job.pk)
    job.refresh_from_db()
    assert ran == [0, 1, 2, 3]
    assert (job.state, job.done) == ("cancelled", 4)


@pytest.mark.usefixtures("sent")
def test_what_a_runner_raises_is_the_jobs_failure(account: Callable[..., User], runner: Any) -> None:
    def work(lease: jobs.Lease) -> None:
        raise ValueError("no such topic")

    runner(work)
    job = started(account)
    kernel.execute(job.pk)
    job.refresh_from_db()
    assert (job.state, job.message) == ("failed", "ValueError: no such topic")


def test_a_wake_up_that_was_lost_is_sent_again_and_a_hopeless_job_is_given_up(
    account: Callable[..., User], sent: list[str]
) -> None:
    job = started(account)
    Job.objects.filter(pk=job.pk).update(created=timezone.now() - timedelta(minutes=1))
    sent.clear()
    assert kernel.reap() == 1
    assert sent == [str(job.pk)]
    Job.objects.filter(pk=job.pk).update(attempts=kernel.GIVE_UP_AFTER)
    assert kernel.reap() == 0
    job.refresh_from_db()
    assert job.state == "failed"


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("how", ["demoted", "disabled", "deleted"])
def test_a_job_does_nothing_once_its_starter_may_not_run_it_any_more(
    how: str, account: Callable[..., User], runner: Any
) -> None:
    ran: list[int] = []
    runner(lambda lease: ran.append(1))
    job = started(account)
    if how == "deleted":
        User.objects.filter(pk=job.actor_id).delete()
    else:
        change = {"role": Role.VIEWER, "is_superuser": False} if how == "demoted" else {"is_active": False}
        User.objects.filter(pk=job.actor_id).update(**change)
    kernel.execute(job.pk)
    job.refresh_from_db()
    assert ran == []
    assert (job.state, job.lease) == ("failed", "")
    assert "needs job.control" in job.message


def test_every_task_runs_jobs_by_their_permission_or_is_housekeeping_that_acts_for_nobody() -> None:
    from console.celery import app

    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.startswith("console.")}
    assert ours == {"console.jobs.run", "console.jobs.reap", "console.outbox.drain"}
    assert kernel._runners
    assert all(isinstance(permission, Permission) for permission, _ in kernel._runners.values())
