"""`/static/` served before Django: WhiteNoise's index of the collected files, answered over ASGI.

WhiteNoise knows what each file is (type, hash in the name, compressed forms, validators); its own middleware is WSGI's.
"""

import asyncio
from pathlib import Path
from typing import Any

from whitenoise.base import WhiteNoise
from whitenoise.responders import Response

from console.proxies import Application, Receive, Scope, Send


class _Index(WhiteNoise):  # type: ignore[misc]  # untyped base
    def immutable_file_test(self, path: str, url: str) -> bool:
        """Collected names carry a hash: `app.3d6553be6735.js`."""
        parts = Path(path).name.split(".")
        return len(parts) > 2 and len(parts[-2]) == 12 and all(c in "0123456789abcdef" for c in parts[-2])


class Assets:
    def __init__(self, application: Application, root: Path, prefix: str = "/static/") -> None:
        self._application = application
        self._prefix = prefix
        self._root = root
        self._index: _Index | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._application(scope, receive, send)
            return
        file = self._found(scope["path"])
        if file is None or scope["method"] not in ("GET", "HEAD"):
            status = 404 if file is None else 405
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        named = {
            f"HTTP_{name.decode('latin-1').upper().replace('-', '_')}": value.decode("latin-1")
            for name, value in scope["headers"]
        }
        response = file.get_response(scope["method"], named)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        headers += [(b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin")]
        body = await asyncio.to_thread(_read, response)
        await send({"type": "http.response.start", "status": int(response.status), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _found(self, path: str) -> Any:
        if self._index is None and self._root.is_dir():
            # Filled on first use: the files are collected before the process serves, not before it is imported.
            self._index = _Index(None, root=str(self._root), prefix=self._prefix, max_age=60)
        return None if self._index is None else self._index.files.get(path)


def _read(response: Response) -> bytes:
    if response.file is None:
        return b""
    with response.file:
        return bytes(response.file.read())
