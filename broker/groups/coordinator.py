"""The group coordinator: every group there is, and the calls made on them.

It turns calls into steps of one group's state machine. Everything durable passes through the `StateLog` as
compacted records; `replay` takes them back in at start, `resume` then gives restored members a whole session. `tick`
must be called when `next_deadline` has come. The calls live in one module per family; all of them share the
`GroupTable`.
"""

from __future__ import annotations

from broker.groups.admin_door import AdminDoor
from broker.groups.classic_door import ClassicDoor
from broker.groups.consumer_door import ConsumerDoor
from broker.groups.offset_door import OffsetDoor
from broker.groups.share_door import ShareDoor


class GroupCoordinator(ClassicDoor, ConsumerDoor, ShareDoor, OffsetDoor, AdminDoor):
    """All groups of this broker, and all calls on them."""
