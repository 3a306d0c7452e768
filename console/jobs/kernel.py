"""Starting, leasing, running, cancelling and reaping jobs. The invariants are in models.py.

Only the holder of a job's lease writes its progress: each write names the lease, so a runner that was thought dead and
comes back finds no row to update and stops (`LeaseLost`). Nothing here holds a transaction while a runner runs.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import current_app
from django.apps import apps
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from console import audit
from console.accounts.permissions import Permission, PermissionRefused, demand

log = logging.getLogger("sluice.jobs")

LEASE = timedelta(seconds=30)
GIVE_UP_AFTER = 20  # wake-ups without a runner finishing: something kills it each time


class Cancelled(Exception):
    """Somebody asked for the job to stop."""


class LeaseLost(Exception):
    """Another worker holds the job now; this one must stop without writing anything."""


class UnknownKind(LookupError):
    """No runner is registered for the job's kind."""


Runner = Callable[["Lease"], None]
_runners: dict[str, tuple[Permission, Runner]] = {}


def runner(kind: str, permission: Permission) -> Callable[[Runner], Runner]:
    """Registers what runs jobs of a kind. Whoever started one needs `permission` at each run, not at its start alone:
    a job outlives the request, and a role may be taken away meanwhile."""

    def register(function: Runner) -> Runner:
        _runners[kind] = (permission, function)
        return function

    return register


def _jobs() -> Any:
    return apps.get_model("jobs", "Job").objects


class Lease:
    """One worker's hold on one job, with the job's parameters and where the last runner stopped."""

    def __init__(self, job: Any, token: str) -> None:
        self.job_id = job.pk
        self.params: dict[str, Any] = job.params
        self.cursor: Any = job.cursor
        self.done: int = job.done
        self.failed: int = job.failed
        self.total: int | None = job.total
        self.actor: Any = job.actor
        self.actor_name: str = job.actor_name
        self._token = token
        self._lost = threading.Event()

    def save(self, **progress: Any) -> None:
        """Records progress (cursor, done, failed, total, message, result) and renews the lease.

        Raises Cancelled when somebody asked for it, LeaseLost when another worker took over.
        """
        unknown = progress.keys() - {"cursor", "done", "failed", "total", "message", "result"}
        if unknown:
            raise TypeError(f"not part of a job's progress: {sorted(unknown)}")
        if self._lost.is_set() or not self.renew(**progress):
            self._lost.set()
            raise LeaseLost(self.job_id)
        for name in progress.keys() & {"cursor", "done", "failed", "total"}:
            setattr(self, name, progress[name])
        if _jobs().filter(pk=self.job_id, cancel_requested=True).exists():
            raise Cancelled(self.job_id)

    def renew(self, **progress: Any) -> bool:
        held = _jobs().filter(pk=self.job_id, lease=self._token, state="running")
        return bool(held.update(lease_until=timezone.now() + LEASE, **progress))


def start(*, actor: Any, kind: str, title: str, params: dict[str, Any], total: int | None = None) -> Any:
    """Creates a job and wakes a worker once the row is committed. The caller has checked the permission."""
    job = _jobs().create(
        kind=kind,
        title=title,
        params=params,
        total=total,
        actor_id=actor.pk,
        actor_name=actor.username,
        created=timezone.now(),
    )
    transaction.on_commit(lambda: wake(job.pk))
    return job


def cancel(*, actor: Any, job: Any) -> None:
    """Asks a job to stop; one that no worker holds stops at once."""
    demand(actor, Permission.JOB_CONTROL)
    with audit.change(actor, "job.cancel", kind="job", name=str(job.pk), before={"state": job.state}):
        _jobs().filter(pk=job.pk).exclude(state__in=("done", "failed", "cancelled")).update(cancel_requested=True)
        _jobs().filter(pk=job.pk, state="queued").update(state="cancelled", finished=timezone.now())


def wake(job_id: Any) -> None:
    """Sends the wake-up. One that can't be sent is only late: the reaper sends it again."""
    try:
        current_app.send_task("console.jobs.run", args=[str(job_id)])
    except (OSError, OperationalError) as error:
        log.warning("job %s waits for the reaper: %s", job_id, error)


def take(job_id: Any) -> Lease | None:
    """Takes the lease if nobody holds it; None when there is nothing to do."""
    now, token = timezone.now(), secrets.token_hex(16)
    free = Q(state="queued") | Q(state="running", lease_until__lt=now)
    with transaction.atomic():
        job = _jobs().select_for_update().filter(free, pk=job_id).first()
        if job is None:
            return None
        job.state, job.lease, job.lease_until = "running", token, now + LEASE
        job.started = job.started or now
        job.attempts += 1
        job.save()
    return Lease(job, token)


def execute(job_id: Any) -> None:
    """Runs a job to its end, or until it is cancelled, lost or fails. Idempotent: the cursor says where to go on."""
    lease = take(job_id)
    if lease is None:
        return
    job = _jobs().get(pk=job_id)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(lease, stop), name=f"lease-{job_id}", daemon=True)
    keeper.start()
    outcome: dict[str, Any] = {"state": "done"}
    try:
        if job.cancel_requested:
            raise Cancelled(job_id)
        if job.kind not in _runners:
            raise UnknownKind(f"no runner for {job.kind!r}")
        permission, run = _runners[job.kind]
        demand(job.actor, permission)
        run(lease)
    except LeaseLost:
        log.warning("job %s went to another worker", job_id)
        return
    except Cancelled:
        outcome = {"state": "cancelled"}
    except PermissionRefused as error:
        log.warning("job %s: %s may not run it any more", job_id, job.actor_name)
        outcome = {"state": "failed", "message": f"{job.actor_name}: {error}"}
    except Exception as error:  # a runner's failure is the job's outcome, not the worker's end
        log.exception("job %s failed", job_id)
        outcome = {"state": "failed", "message": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        stop.set()
        keeper.join()
    _jobs().filter(pk=job_id, lease=lease._token).update(lease="", lease_until=None, finished=timezone.now(), **outcome)


def _keep(lease: Lease, stop: threading.Event) -> None:
    """Renews the lease while a runner is inside one long call."""
    try:
        while not stop.wait(LEASE.total_seconds() / 3):
            if not lease.renew():
                lease._lost.set()
                return
    finally:
        connection.close()


def reap() -> int:
    """Wakes every job that waits or whose worker died; gives up on one that never gets through. Returns how many."""
    now = timezone.now()
    waiting = _jobs().filter(
        Q(state="queued", created__lt=now - timedelta(seconds=5)) | Q(state="running", lease_until__lt=now)
    )
    woken = 0
    for job in list(waiting):
        if job.attempts >= GIVE_UP_AFTER:
            _jobs().filter(pk=job.pk, lease=job.lease).update(
                state="failed", finished=now, message=f"gave up after {job.attempts} attempts"
            )
            continue
        wake(job.pk)
        woken += 1
    return woken
