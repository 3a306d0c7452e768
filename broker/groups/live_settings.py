"""Settings of groups as they are now: the group's own configs, over the broker's dynamic ones, over the defaults."""

from __future__ import annotations

from dataclasses import replace

from broker.groups.classic_calls import ClassicSettings
from broker.groups.consumer_state import ConsumerSettings
from broker.groups.directory import GroupSettings
from broker.groups.ports import GroupConfigs
from broker.groups.share import ShareSettings


class LiveSettings:
    """Looks settings up whenever they are needed, so that an operator's change holds from the next call on."""

    def __init__(
        self,
        configs: GroupConfigs,
        *,
        classic: ClassicSettings | None,
        consumer: ConsumerSettings | None,
        share: ShareSettings | None,
        groups: GroupSettings | None,
    ) -> None:
        self._configs = configs
        self._classic = classic or ClassicSettings()
        self._consumer = consumer or ConsumerSettings()
        self._share = share or ShareSettings()
        self._groups = groups or GroupSettings()

    def classic(self) -> ClassicSettings:
        """Limits of the classic protocol."""
        broker, default = self._configs.broker(), self._classic
        if not broker:
            return default
        return replace(
            default,
            initial_rebalance_delay_ms=int(
                broker.get("group.initial.rebalance.delay.ms", default.initial_rebalance_delay_ms)
            ),
            min_session_timeout_ms=int(broker.get("group.min.session.timeout.ms", default.min_session_timeout_ms)),
            max_session_timeout_ms=int(broker.get("group.max.session.timeout.ms", default.max_session_timeout_ms)),
            max_size=int(broker.get("group.max.size", default.max_size)),
        )

    def consumer(self, group_id: str) -> ConsumerSettings:
        """Settings of one consumer group."""
        broker, group, default = self._configs.broker(), self._configs.overrides(group_id), self._consumer
        if not broker and not group:
            return default
        session = broker.get("group.consumer.session.timeout.ms", default.session_timeout_ms)
        interval = broker.get("group.consumer.heartbeat.interval.ms", default.heartbeat_interval_ms)
        return replace(
            default,
            session_timeout_ms=int(group.get("consumer.session.timeout.ms", session)),
            heartbeat_interval_ms=int(group.get("consumer.heartbeat.interval.ms", interval)),
        )

    def share(self, group_id: str) -> ShareSettings:
        """Settings of one share group's membership."""
        broker, group, default = self._configs.broker(), self._configs.overrides(group_id), self._share
        if not broker and not group:
            return default
        session = broker.get("group.share.session.timeout.ms", default.session_timeout_ms)
        interval = broker.get("group.share.heartbeat.interval.ms", default.heartbeat_interval_ms)
        return replace(
            default,
            session_timeout_ms=int(group.get("share.session.timeout.ms", session)),
            heartbeat_interval_ms=int(group.get("share.heartbeat.interval.ms", interval)),
            max_size=int(broker.get("group.share.max.size", default.max_size)),
        )

    def groups(self) -> GroupSettings:
        """Settings of all groups."""
        minutes = self._configs.broker().get("offsets.retention.minutes")
        return self._groups if minutes is None else replace(self._groups, retention_ms=int(minutes) * 60_000)
