"""`GET /healthz` of one service: 200 once every partition in its charge is served, 503 with the reasons otherwise.
`GET /metrics`: what its partitions hold and did, in Prometheus' text format; a partition that can't tell is left out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from broker.delay.service import Service


def serve(
    address: tuple[str, int], service: Service, counts: Callable[[], Mapping[str, Mapping[str, Any]]]
) -> ThreadingHTTPServer:
    """Listen; a thread of its own answers. `counts` tells of each partition (see `answering`). Raises OSError when the
    address can't be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            if self.path == "/metrics":
                status, kind, answer = 200, "text/plain; version=0.0.4", metrics(counts()).encode()
            elif self.path == "/healthz":
                reasons = service.ailments()
                body = {"status": "unavailable" if reasons else "ok", "reasons": reasons}
                status, kind, answer = 503 if reasons else 200, "application/json", json.dumps(body).encode() + b"\n"
            else:
                status, kind, answer = 404, "text/plain", b"not found\n"
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def metrics(counts: Mapping[str, Mapping[str, Any]]) -> str:
    """Gauges and counters by partition."""
    known = {partition: told for partition, told in sorted(counts.items()) if "trouble" not in told}
    lines = ["# TYPE sluice_delay_pending gauge"]
    for partition, told in known.items():
        for horizon, number in told["horizons"].items():
            lines.append(f'sluice_delay_pending{{partition="{partition}",horizon="{horizon}"}} {number}')
    for name in ("taken", "fired", "cancelled", "refused"):
        lines.append(f"# TYPE sluice_delay_{name}_total counter")
        lines += [
            f'sluice_delay_{name}_total{{partition="{partition}"}} {told[name]}' for partition, told in known.items()
        ]
    lines.append("# TYPE sluice_delay_lateness_milliseconds gauge")
    for partition, told in known.items():
        for quantile, value in (("0.5", told["p50"]), ("0.99", told["p99"])):
            if value is not None:
                labels = f'partition="{partition}",quantile="{quantile}"'
                lines.append(f"sluice_delay_lateness_milliseconds{{{labels}}} {value}")
    return "\n".join(lines) + "\n"
