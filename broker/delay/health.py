"""`GET /healthz` of one service: 200 once every partition in its charge is served, 503 with the reasons otherwise."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from broker.delay.service import Service


def serve(address: tuple[str, int], service: Service) -> ThreadingHTTPServer:
    """Listen; a thread of its own answers. Raises OSError when the address can't be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            reasons = service.ailments() if self.path == "/healthz" else {}
            status = 404 if self.path != "/healthz" else 503 if reasons else 200
            body = {"status": "ok" if status == 200 else "unavailable", "reasons": reasons}
            answer = json.dumps(body).encode() + b"\n"
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
