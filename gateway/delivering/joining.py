"""Subscriptions whose barrier is under way.

What was written since the SUBSCRIBE is given to them already, so that a device that publishes without waiting for
another's SUBACK is heard. They are few and short-lived, so a tree would cost more than it saves; kept by the first
level of their filters, a thousand that somebody sends as a bomb cost the others' messages nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.mqtt.topics import matches
from gateway.ports import Message, Subscription


@dataclass(slots=True, eq=False)
class Joining:
    """One of them."""

    subscriber: Any  # a session or what stands for it
    subscription: Subscription
    since: int  # epoch milliseconds; 0: its barrier is over
    newer: set[str] = field(default_factory=set)  # topics whose retained message was given as it was published

    @property
    def first(self) -> str:
        """The first level of its filter."""
        return self.subscription.filter.partition("/")[0]

    def deliver(self, message: Message, timestamp: int) -> None:
        wanted = self.subscription
        if (
            timestamp >= self.since
            # nothing more is taken from it until it has its SUBACK: what is its own was there before
            and not (self.since and message.sender == self.subscriber.client_id)
            and matches(wanted.filter, message.topic)
            and not (wanted.no_local and message.sender == self.subscriber.client_id)
            and self.subscriber.state.rights.may_receive(message.topic)
        ):
            identifiers = () if wanted.identifier is None else (wanted.identifier,)
            retain = message.retain and wanted.retain_as_published
            self.subscriber.deliver(message, min(message.qos, wanted.qos), retain, identifiers)
            if message.retain:
                self.newer.add(message.topic)


class Joinings:
    """All of them, by the first level of their filters."""

    def __init__(self) -> None:
        self.by_first: dict[str, dict[Joining, None]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_first)

    def since(self) -> list[int]:
        """When those began that still wait for their barrier, epoch milliseconds."""
        return [each.since for several in self.by_first.values() for each in several if each.since]

    def add(self, joining: Joining) -> None:
        self.by_first.setdefault(joining.first, {})[joining] = None

    def remove(self, joinings: Iterable[Joining]) -> None:
        for each in joinings:
            several = self.by_first[each.first]
            del several[each]
            if not several:
                del self.by_first[each.first]

    def deliver(self, message: Message, timestamp: int) -> None:
        """Give the message to those that it matches."""
        for first in (message.topic.partition("/")[0], "+", "#"):
            for each in self.by_first.get(first, ()):
                each.deliver(message, timestamp)
