"""The job kernel's face to other slices.

    @jobs.runner("redrive", Permission.DEADLETTER_REDRIVE)
    def redrive(lease: jobs.Lease) -> None:
        for page in pages(lease.params, after=lease.cursor):
            ...broker calls, no transaction held...
            lease.save(cursor=page.end, done=lease.done + len(page))   # raises Cancelled or LeaseLost

    job = jobs.start(actor=actor, kind="redrive", title="dlq.orders", params={...})

A slice registers its runners in its `tasks.py`, which the worker imports.
"""

from console.jobs.kernel import Cancelled, Lease, LeaseLost, cancel, runner, start

__all__ = ["Cancelled", "Lease", "LeaseLost", "cancel", "runner", "start"]
