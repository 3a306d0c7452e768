"""`manage.py status`: what runs, and whether the product serves."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from console.supervisor.addresses import DEFAULTS
from console.supervisor.supervise import STATE_FILE, fetch_health


class Command(BaseCommand):
    help = "Say which of the product's processes run and whether it serves; exit status 1 when it does not."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        http = os.environ.get("SLUICE_HTTP") or DEFAULTS["SLUICE_HTTP"]
        status, body = asyncio.run(fetch_health(http))
        for process in self._processes(Path(settings.SLUICE.data)):
            pid = process["pid"]
            state = f"running as {pid}" if pid and Path(f"/proc/{pid}").exists() else "not running"
            restarts = f", started again {process['restarts']} times" if process["restarts"] else ""
            self.stdout.write(f"{process['name']:<8} {state}{restarts}")
        if status == 200:
            self.stdout.write(f"healthy: http://{http}/healthz answers 200")
            for what, words in json.loads(body).get("warnings", {}).items():
                self.stdout.write(f"warning: {what}: {words}")
        elif status is None:
            raise CommandError(f"not running: http://{http}/healthz can't be reached ({body})", returncode=1)
        else:
            raise CommandError(f"not healthy: http://{http}/healthz answers {status}: {body}", returncode=1)

    @staticmethod
    def _processes(data: Path) -> list[dict[str, Any]]:
        try:
            state = json.loads((data / STATE_FILE).read_text())
        except (OSError, ValueError):
            return []
        processes: list[dict[str, Any]] = state["processes"]
        return processes
