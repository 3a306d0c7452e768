"""`manage.py up`: start the whole product and keep it running."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from broker import internal
from console.supervisor import addresses, folder
from console.supervisor.children import children
from console.supervisor.first_admin import ensure_first_admin
from console.supervisor.process import prefixed
from console.supervisor.supervise import Supervisor


class Command(BaseCommand):
    help = "Start broker, gateway, console, monitor and worker, and keep them running."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="only say whether the product could start here")

    def handle(self, *args: Any, **options: Any) -> None:
        environ = dict(os.environ)
        data = Path(settings.SLUICE.data)
        embedded = not environ.get("SLUICE_KAFKA")
        try:
            wanted = list(addresses.configured(environ, embedded=embedded))
            folder.ready(data)
            held = folder.lock(data)
            addresses.require_free(wanted)
        except (addresses.BadAddress, addresses.AddressTaken, folder.FolderUnusable, folder.FolderInUse) as error:
            raise CommandError(str(error), returncode=1) from error
        if options["check"]:
            self.stdout.write("Sluice could start here.")
            os.close(held)
            return
        if embedded:
            internal.ensure(data)
        # The children find the folder wherever they are started from.
        environ["SLUICE_DATA"] = str(data.resolve())
        http = environ.get("SLUICE_HTTP") or addresses.DEFAULTS["SLUICE_HTTP"]
        write = prefixed()

        def prepare_database() -> None:
            call_command("migrate", verbosity=0, interactive=False)
            call_command("collectstatic", verbosity=0, interactive=False)
            ensure_first_admin(data, environ.get("SLUICE_ADMIN_PASSWORD"), say=lambda line: write("sluice", line))

        def announce(seconds: float) -> None:
            for line in self._welcome(wanted, http, seconds):
                write("sluice", line)

        supervisor = Supervisor(children(embedded=embedded, http=http), environ, data, write=write)
        asyncio.run(supervisor.run(prepare_database=prepare_database, http=http, announce=announce))
        sys.stdout.flush()

    @staticmethod
    def _welcome(wanted: list[addresses.Address], http: str, seconds: float) -> list[str]:
        others = [f"{a.scheme.lower():<10}{a}" for a in wanted if a.variable != "SLUICE_HTTP"]
        return [f"ready after {seconds:.1f} s", f"console   http://{http}/", *others]
