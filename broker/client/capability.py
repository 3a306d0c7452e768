"""What the cluster behind the seam can do, probed and never assumed.

Each ability is `available`, or not for a `reason` that can be shown to an operator.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Ability:
    available: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.available


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """One probe's result. `embedded` is True for the broker that came with this installation."""

    cluster_id: str
    embedded: bool
    brokers: int
    consumer_groups: Ability
    """KIP-848: `protocol="consumer"`."""
    share_groups: Ability
    """KIP-932."""
    share_dead_letters: Ability
    """KIP-1191: a share group's dead-letter configs."""
    group_configs: Ability
    acls: Ability
    scram_users: Ability
    quotas: Ability
    log_dirs: Ability
    transactions: Ability
    """Listing, describing and aborting transactions."""
    broker_rates: Ability
    """`__sluice_broker`: rates and connections, told by the broker."""
    authorization_summary: Ability
    """`__sluice_broker`: who was allowed and refused what."""

    def missing(self) -> dict[str, str]:
        """Name → reason of every ability that is not there."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value.reason for name, value in values.items() if isinstance(value, Ability) and not value}
