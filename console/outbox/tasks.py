"""The worker's part of the outbox."""

from celery import shared_task

from console.outbox import delivery


@shared_task(name="console.outbox.drain", ignore_result=True, expires=10)
def drain() -> None:
    delivery.drain()
