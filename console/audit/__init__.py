"""The audit trail's face to every other slice: `change`, and `address` for the request in hand.

    with audit.change(actor, "topic.create", kind="topic", name=name, after={"partitions": 3}) as change:
        kafka.admin().create_topic(...)

`change.before` and `change.after` may be set inside. No database transaction is held while the body runs.
"""

from console.audit.record import Change, Failure, address_in_force, change, system

__all__ = ["Change", "Failure", "address_in_force", "change", "system"]
