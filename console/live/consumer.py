"""The live socket. It authorises, watches the keys its page shows, and forwards what changed of them.

Client → server: `{"watch": ["topic/orders", "group/billing", …]}`, replacing what was watched before.
Server → client: `{"at", "trouble", "cluster": {…}, "rows": {"topic/orders": {"in": 12.5}, "group/x": null}}` with the
fields that changed since the last frame; null for what is gone.

The session and the role are looked up again for every message and at least every few seconds, so a sign-out or a
lost role ends the socket.
"""

import asyncio
import contextlib
import json
import time
from typing import Any, cast

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore

from console import snapshot
from console.accounts.permissions import Permission, holds
from console.live.hub import frame, hub

MAX_WATCHED = 300
MAX_MESSAGE = 64 * 1024
RECHECK_SECONDS = 3.0
FRAME_SECONDS = 0.5  # at most two frames a second, however fast pictures come
UNAUTHORISED, MALFORMED = 4401, 4400
PERMISSIONS = {"watch": Permission.VIEW}  # what each kind of message needs; the test that walks the sockets reads it


class LiveConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels has no types
    async def connect(self) -> None:
        self._sender: asyncio.Task[None] | None = None
        self._watched: tuple[str, ...] = ()
        self._sent: dict[str, dict[str, Any] | None] = {}
        self._checked = 0.0
        if not await self._allowed(Permission.VIEW):
            await self.close(code=UNAUTHORISED)
            return
        await self.accept()
        self._event = hub.join()
        self._event.set()
        self._sender = asyncio.create_task(self._send_frames())

    async def disconnect(self, code: int) -> None:
        if self._sender is not None:
            self._sender.cancel()
            hub.leave(self._event)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            if text_data is None or len(text_data) > MAX_MESSAGE:
                raise ValueError("text of a moderate length is wanted")
            message = json.loads(text_data)
            (verb,) = message
            keys = message[verb]
            if verb not in PERMISSIONS or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise ValueError("not a message of this socket")
        except (ValueError, TypeError, RecursionError):
            await self.close(code=MALFORMED)
            return
        if not await self._allowed(PERMISSIONS[verb]):
            await self.close(code=UNAUTHORISED)
            return
        self._watched = tuple(dict.fromkeys(keys[:MAX_WATCHED]))
        self._sent = {key: row for key, row in self._sent.items() if key in self._watched}
        self._event.set()

    async def _allowed(self, permission: Permission) -> bool:
        self._checked = time.monotonic()
        session = self.scope.get("session")
        key = session.session_key if session else None
        return bool(await database_sync_to_async(_session_holds)(key, permission))

    async def _send_frames(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._event.wait(), RECHECK_SECONDS)
                if time.monotonic() - self._checked > RECHECK_SECONDS and not await self._allowed(Permission.VIEW):
                    await self.close(code=UNAUTHORISED)
                    return
                if not self._event.is_set():
                    continue
                self._event.clear()
                picture = snapshot.current()
                await self.send(text_data=frame(picture, hub.cluster_frame(picture), self._changes(picture)))
                await asyncio.sleep(FRAME_SECONDS)

    def _changes(self, picture: snapshot.Picture) -> dict[str, dict[str, Any] | None]:
        changes: dict[str, dict[str, Any] | None] = {}
        for key in self._watched:
            row = picture.live(key)
            if key not in self._sent:
                changes[key] = row
            elif (before := self._sent[key]) != row:
                changes[key] = row and {
                    name: value for name, value in row.items() if (before or {}).get(name, _ABSENT) != value
                }
            self._sent[key] = row
        return changes


_ABSENT = object()


def session_user(session_key: str | None, permission: Permission) -> Any:
    """The session's account, as it is now; None when the session is gone or the account lacks the permission."""
    if not session_key:
        return None
    session = SessionStore(session_key)
    data = session.load()
    user = get_user_model().objects.filter(pk=str(data[SESSION_KEY])).first() if data.get(SESSION_KEY) else None
    if user is None or not holds(cast(Any, user), permission):
        return None
    return user if data.get("_auth_user_hash") == user.get_session_auth_hash() else None


def _session_holds(session_key: str | None, permission: Permission) -> bool:
    return session_user(session_key, permission) is not None
