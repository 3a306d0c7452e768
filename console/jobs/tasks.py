"""Celery's side of the job kernel: a wake-up for one job, and the reaper."""

from celery import shared_task
from django.utils import timezone

from console.audit.record import close_abandoned
from console.jobs import kernel


@shared_task(name="console.jobs.run", ignore_result=True)
def run(job_id: str) -> None:
    kernel.execute(job_id)


@shared_task(name="console.jobs.reap", ignore_result=True, expires=30)
def reap() -> None:
    kernel.reap()
    close_abandoned(timezone.now())
