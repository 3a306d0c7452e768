"""Host for amqtt's authentication and topic plugins, which run here unmodified.

Plugins are named as in amqtt's own configuration: {"module.Class": {options}}. amqtt's plugin manager loads them into
a context whose broker is a stand-in: plugins that decide (`authenticate`, `topic_filtering`) work, as do their
`on_broker_pre_start` and `close`; what would reach into amqtt's broker finds an empty one.

Decisions combine as in amqtt: a connection needs at least one plugin that says yes and none that says no; a topic
needs every topic plugin's yes. A plugin that fails or takes longer than `DEADLINE` says no. None of amqtt's default
plugins is ever loaded. Answers about topics are remembered per connection (`asking`). With topic plugins no
session outlives its connection: nobody could ask them about messages for a device that is away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

from gateway.ports import ConnectRequest, Identity, Refused
from gateway.why import Why

log = logging.getLogger("gateway.plugins")

DEADLINE = 5.0
BAD_CREDENTIALS = 0x86


class BadPlugins(Exception):
    """The plugins named can't be loaded."""


class _NoBroker:
    """What plugins find where amqtt's broker would be."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}
        self.retained_messages: dict[str, Any] = {}
        self.subscriptions: dict[str, Any] = {}


class PluginHost:
    """Loads and asks plugins. A verifier of `gateway.identity.authentication`."""

    def __init__(self, configuration: dict[str, dict[str, Any]]) -> None:
        # amqtt is slow to import and only wanted where plugins are configured
        from amqtt.broker import BrokerContext
        from amqtt.errors import PluginError, PluginLoadError
        from amqtt.plugins.manager import PluginManager

        context = BrokerContext(_NoBroker())
        context.config = {"plugins": configuration}
        try:
            self._manager = PluginManager("sluice.gateway.plugins", context, asyncio.get_running_loop())
        except (PluginError, PluginLoadError) as error:
            cause = error.__cause__ or error
            raise BadPlugins(f"{type(error).__name__}: {cause}") from error
        self.authenticates = bool(self._manager._auth_plugins)
        self.filters_topics = bool(self._manager._topic_plugins)

    @classmethod
    def read(cls, path: Path) -> PluginHost:
        """From a JSON file of {class path: options}."""
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise BadPlugins(f"{path}: {error}") from error
        if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
            raise BadPlugins(f"{path}: must be an object of class path → options")
        return cls(found)

    async def start(self) -> None:
        from amqtt.events import BrokerEvents

        await self._manager.fire_event(BrokerEvents.PRE_START, wait=True)

    async def close(self) -> None:
        from amqtt.events import BrokerEvents

        await self._manager.fire_event(BrokerEvents.PRE_SHUTDOWN, wait=True)
        await self._manager.close()

    def session(self, request: ConnectRequest) -> Any:
        """The connection as plugins see it."""
        from amqtt.session import Session

        found = Session()
        found.client_id = request.client_id
        found.username = request.username
        found.password = request.password.decode("utf-8", "replace") if request.password is not None else None
        found.clean_session = request.clean_start
        found.keep_alive = request.keep_alive
        host, _, port = request.peer.address.rpartition(":")
        found.remote_address = host.strip("[]")
        found.remote_port = int(port) if port.isdigit() else None
        return found

    async def verify(self, request: ConnectRequest) -> Identity | None:
        if not self.authenticates:
            return None
        session = self.session(request)
        try:
            async with asyncio.timeout(DEADLINE):
                answers = await self._manager.map_plugin_auth(session=session)
        except Exception as error:
            log.warning("an authentication plugin failed: %s: %s", type(error).__name__, error)
            raise Refused(BAD_CREDENTIALS, "authentication failed", why=Why.PLUGIN) from error
        given = [answer for answer in answers.values() if answer is not None]
        if not given or not all(given):
            return None
        name = request.username or ""
        return Identity(name=name, username=request.username)

    async def may(self, session: Any, action: str, topic: str) -> bool:
        """Whether every topic plugin allows `publish`, `subscribe` or `receive` of a topic (or filter)."""
        from amqtt.contexts import Action

        try:
            async with asyncio.timeout(DEADLINE):
                answers = await self._manager.map_plugin_topic(session=session, topic=topic, action=Action(action))
        except Exception as error:
            log.warning("a topic plugin failed: %s: %s", type(error).__name__, error)
            return False
        return all(bool(answer) for answer in answers.values())
