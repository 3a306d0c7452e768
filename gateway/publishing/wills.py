"""Wills: kept with the session, published when the connection ended without a goodbye and the delay is over.

Who may publish to the will's topic is asked when the will is set and again when it is fired. While the lease is lost
nothing is fired: another gateway may have fired it already.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from gateway.counters import Counters
from gateway.headers import properties_object, properties_of
from gateway.ports import Will
from gateway.publishing.uplinks import Uplinks
from gateway.registry import Registry

log = logging.getLogger("gateway.wills")


class Wills:
    """`due` are the delayed ones: client id → (epoch seconds, will, user name)."""

    def __init__(
        self, registry: Registry, uplinks: Uplinks, counters: Counters, when_held: Callable[[Callable[[], None]], None]
    ) -> None:
        self.due: dict[str, tuple[float, Will, str]] = {}
        self._registry = registry
        self._uplinks = uplinks
        self._counters = counters
        self._when_held = when_held

    def fire(
        self, client_id: str, principal: str, will: Will, username: str, still: Callable[[], bool] | None = None
    ) -> None:
        """Publish now, or when the lease is held again, if it is `still` this gateway's to publish."""

        def go() -> None:
            if still is not None and not still():
                return
            if not self._registry.rights(principal, client_id).may_publish(will.topic):
                self._counters.denied += 1
                log.info("the will of %s is not published: its topic is not allowed any more", client_id)
                return
            self._uplinks.publish_will(will, client_id, username)

        self._when_held(go)


def will_object(will: Will | None) -> dict[str, Any] | None:
    """A will inside a session's record."""
    if will is None:
        return None
    found = asdict(will)
    found["payload"] = will.payload.hex()
    found["properties"] = properties_object(will.properties)
    return found


def will_of(found: dict[str, Any] | None) -> Will | None:
    if found is None:
        return None
    will = Will(**{**found, "payload": bytes.fromhex(found["payload"]), "properties": None})
    return replace(will, properties=properties_of(found["properties"]))
