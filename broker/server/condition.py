"""What the disk lets the broker do, as it tells clients: the store's health, and since when it is not well."""

from __future__ import annotations

from dataclasses import dataclass

from broker.log.health import Health

OK = "ok"
DEGRADED = "degraded"  # it serves; something is damaged, or can't be put in its place yet
UNWRITABLE = "unwritable"  # nothing is acknowledged; heals by itself, with space or with the disk
STOPPED = "stopped"  # an fsync failed: nothing is acknowledged until a restart


def state_of(health: Health) -> str:
    """The one word for it."""
    if health.ok:
        return OK
    if health.fatal:
        return STOPPED
    return DEGRADED if health.writable else UNWRITABLE


@dataclass(slots=True)
class Condition:
    """`since`: epoch ms at which the present state was first seen; 0 while all is well."""

    state: str = OK
    reason: str = ""  # one line; empty while all is well
    since: int = 0

    def look(self, health: Health, now: int) -> bool:
        """Take the store's word; True when the state is another one than before."""
        before, self.state = self.state, state_of(health)
        self.reason = health.reason
        if self.state != before:
            self.since = 0 if self.state == OK else now
        return self.state != before

    def configs(self) -> dict[str, str]:
        """As read-only configs of the broker, where any Kafka tool can read them."""
        return {
            "sluice.storage.state": self.state,
            "sluice.storage.reason": self.reason,
            "sluice.storage.since": str(self.since),
        }
