"""One bridge, kept going: connect, take in and send on until something fails, say why, try again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace

from broker.client.errors import ClientError
from gateway.bridge.outbound import Outbound
from gateway.bridge.upstream import Disconnected, Take, Upstream
from gateway.bridges import Bridge, problems
from gateway.contract import BridgeStatus
from gateway.ports import NotAcknowledged, Receipt, Will
from gateway.receipts import wait
from gateway.sealing import Unsealable, unseal

log = logging.getLogger("gateway.bridge")

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
STEADY = 30.0  # a connection that held this long begins again with the first pause

Publish = Callable[[Will, str], Receipt[None]]
"""(message, client id): the receipt settles when it is durable."""


class Running:
    """`start`, `status` whenever asked, `stop`."""

    def __init__(
        self,
        bridge: Bridge,
        *,
        owner: str,
        key: bytes,
        publish: Publish,
        outbound: Outbound | None,
        clock: Callable[[], float],
        connect: Callable[[Bridge, str, Take], Upstream] = Upstream,
    ) -> None:
        self.bridge = bridge
        self._key = key
        self._publish = publish
        self._outbound = outbound
        self._clock = clock
        self._connect = connect
        self._received = self._dropped = 0
        self._status = BridgeStatus(name=bridge.name, state="connecting", since=clock(), owner=owner, at=clock())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"bridge {self.bridge.name}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def status(self) -> BridgeStatus:
        out = self._outbound
        return replace(
            self._status,
            at=self._clock(),
            received=self._received,
            dropped=self._dropped,
            sent=out.sent if out is not None else 0,
            lag=out.lag if out is not None else None,
        )

    def _note(self, state: str, error: str = "") -> None:
        before, now = self._status, self._clock()
        if state != before.state or (error and error != before.error):
            fields = {"event": "bridge", "bridge": self.bridge.name, "state": state}
            log.log(logging.WARNING if error else logging.INFO, "%s", error or state, extra=fields)
        self._status = replace(
            before,
            state=state,
            since=now if state != before.state else before.since,
            error=error or before.error,
            error_at=now if error else before.error_at,
        )

    async def _run(self) -> None:
        bridge = self.bridge
        if not bridge.enabled:
            self._note("disabled")
            return
        wrong = problems(bridge)
        try:
            password = unseal(bridge.password, self._key, bridge.context) if bridge.password else ""
        except Unsealable as error:
            wrong.append(str(error))
        if wrong:
            self._note("refused", "; ".join(wrong))
            return
        pause = FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._connected(password)
            except (Disconnected, ClientError, NotAcknowledged) as error:
                self._note("failing", str(error) or type(error).__name__)
            except Exception as error:
                log.exception("the bridge %s failed by our own fault", bridge.name)
                self._note("failing", f"{type(error).__name__}: {error}")
            if asyncio.get_running_loop().time() - began > STEADY:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _connected(self, password: str) -> None:
        upstream = self._connect(self.bridge, password, self._take)
        try:
            await upstream.open()
            self._note("connected")
            if self._outbound is None:
                raise Disconnected(await asyncio.shield(upstream.lost))
            await self._outbound.run(upstream)
        finally:
            await upstream.close()

    async def _take(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        """One message from upstream: durable here when this returns. Raises NotAcknowledged."""
        local = self.bridge.local_topic(topic)
        if local is None:
            self._dropped += 1
            return
        will = Will(topic=local, payload=payload, qos=min(qos, 1), retain=retain)
        await wait(self._publish(will, self.bridge.origin))
        self._received += 1
