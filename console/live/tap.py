"""The tap's socket: one operator looks at one client's packets, while the socket is open and at most ten minutes.

Client → server: `{"tap": {"client": "pump-7", "seconds": 60}}` once, then `{"stop": {}}` or nothing. Server → client:
`{"began": {"until": ms}}`, then `{"rows": […], "dropped": n, "connected": bool}` as gateways report, `{"ended": why}`,
where `why` is one of `contract.TapReport`'s words, `access`, `silence` or an error's text.

The reader of `__sluice_tap` stands at its end before the gateways are told, so nothing is missed. While the socket is
open, the tap is renewed every few seconds, and the session and role of who watches are looked up again: a sign-out or a
lost role ends it. What comes faster than the socket takes is counted, not kept.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from console import kafka
from console.accounts.permissions import Permission, PermissionRefused
from console.devices import actions
from console.live.consumer import MALFORMED, MAX_MESSAGE, UNAUTHORISED, session_user
from gateway import contract
from gateway.contract import TAP, TapReport

PERMISSIONS = {"tap": Permission.DEVICE_TAP, "stop": Permission.DEVICE_TAP}
RENEW_SECONDS = 5.0
SILENCE_SECONDS = 12.0  # gateways report every two seconds, seen or not
WAITING = 100  # reports that wait for a slow browser
PLACE = kafka.TopicPartition(TAP, 0)


class Reader:
    """Follows `__sluice_tap` from its end on, in a thread of its own, and hands on what one tap reports."""

    def __init__(self, heard: Callable[[str, TapReport], None]) -> None:
        self._heard = heard
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def start(self) -> None:
        """Returns when it stands at the end; raises ClientError."""
        self._thread.start()
        self._ready.wait(15)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        try:
            found = kafka.admin().offsets([PLACE], kafka.types.At.LATEST)[PLACE]
            if found.error:
                raise kafka.ClientError(f"{TAP}: {found.error}; is a gateway running?")
            reader = kafka.consumer(queue_kbytes=1024, fetch_wait=0.2)
        except (kafka.ClientError, kafka.SettingsError) as error:
            self._failure = error
            self._ready.set()
            return
        try:
            reader.assign({PLACE: found.offset})
            self._ready.set()
            while not self._stop.is_set():
                with contextlib.suppress(kafka.ClientError):  # the broker is away: the silence is noticed
                    for record in reader.poll(100, 0.3):
                        self._take(record)
        finally:
            reader.close()

    def _take(self, record: Any) -> None:
        with contextlib.suppress(contract.MalformedRecord):
            if record.key is not None and record.value is not None:
                self._heard(record.key.decode("utf-8", "replace"), contract.decode(TapReport, record.value))


class TapConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def connect(self) -> None:
        self._task: asyncio.Task[None] | None = None
        if await self._user() is None:
            await self.close(code=UNAUTHORISED)
            return
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            if text_data is None or len(text_data) > MAX_MESSAGE:
                raise ValueError("text of a moderate length is wanted")
            message = json.loads(text_data)
            (verb,) = message
            if verb not in PERMISSIONS or (verb == "tap") is (self._task is not None):
                raise ValueError("not a message of this socket, or not now")
            wanted = message[verb]
            client_id, seconds = (str(wanted["client"]), float(wanted["seconds"])) if verb == "tap" else ("", 0.0)
            if verb == "tap" and not (client_id and len(client_id) <= 512 and 1 <= seconds <= actions.LONGEST_TAP):
                raise ValueError("no client, or no length of time")
        except (ValueError, TypeError, KeyError, RecursionError):
            await self.close(code=MALFORMED)
            return
        user = await self._user()
        if user is None:
            await self.close(code=UNAUTHORISED)
        elif verb == "tap":
            self._task = asyncio.create_task(self._watch(user, client_id, seconds))
        elif self._task is not None:
            self._task.cancel()

    async def _user(self) -> Any:
        session = self.scope.get("session")
        key = session.session_key if session else None
        return await database_sync_to_async(session_user)(key, Permission.DEVICE_TAP)

    async def _watch(self, user: Any, client_id: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        reports: asyncio.Queue[tuple[str, TapReport]] = asyncio.Queue(WAITING)
        missed = [0]

        def put(name: str, report: TapReport) -> None:
            try:
                reports.put_nowait((name, report))
            except asyncio.QueueFull:
                missed[0] += len(report.rows) + report.dropped

        def heard(name: str, report: TapReport) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(put, name, report)

        reader = Reader(heard)
        tap, why = None, "stopped"
        shown = {"rows": 0, "dropped": 0}
        try:
            try:
                await asyncio.to_thread(reader.start)
                start = database_sync_to_async(actions.start_tap)
                tap = await start(actor=user, client_id=client_id, seconds=seconds)
            except PermissionRefused:
                await self._say({"ended": "access"})
                return
            except (kafka.ClientError, kafka.SettingsError) as error:
                await self._say({"ended": str(error)})
                return
            await self._say({"began": {"until": int((time.time() + seconds) * 1000)}})
            why = await self._forward(reports, missed, tap, shown, seconds)
            await self._say({"ended": why})
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # the socket may be gone
                await self._say({"ended": why})
            raise
        finally:
            reader.stop()
            if tap is not None:
                stop = database_sync_to_async(actions.stop_tap)
                with contextlib.suppress(kafka.ClientError, kafka.SettingsError):
                    await asyncio.shield(stop(viewer=user, client_id=client_id, tap=tap, why=why, shown=shown))

    async def _forward(
        self,
        reports: "asyncio.Queue[tuple[str, TapReport]]",
        missed: list[int],
        tap: str,
        shown: dict[str, int],
        seconds: float,
    ) -> str:
        """Send on what comes, renew, look at who watches; why it ended."""
        ends = time.monotonic() + seconds
        renewed = heard = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                name, report = await asyncio.wait_for(reports.get(), 1.0)
                if name == tap:
                    heard = time.monotonic()
                    dropped, missed[0] = report.dropped + missed[0], 0
                    shown["rows"] += len(report.rows)
                    shown["dropped"] += dropped
                    told = {"rows": report.rows, "dropped": dropped, "connected": report.connected}
                    await self._say(told | {"gateway": report.gateway})
                    if report.ended:
                        return report.ended
            now = time.monotonic()
            if now > ends:
                return "time"
            if now - heard > SILENCE_SECONDS:
                return "silence"
            if now - renewed > RENEW_SECONDS:
                renewed = now
                if await self._user() is None:
                    return "access"
                with contextlib.suppress(kafka.ClientError, kafka.SettingsError):
                    await database_sync_to_async(actions.keep_tap)(tap=tap)

    async def _say(self, message: dict[str, Any]) -> None:
        await self.send(text_data=json.dumps(message, separators=(",", ":")))
