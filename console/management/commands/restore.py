"""`manage.py restore`: the product again, from a backup, in a folder that holds none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from console import backups


class Command(BaseCommand):
    help = "Make the product anew in the data folder from a backup; refuses a folder that holds one."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("source", type=Path, help="a folder or .tar file that `manage.py backup` made")
        parser.add_argument("--check", action="store_true", help="only say whether the backup is whole and undamaged")

    def handle(self, *args: Any, source: Path, **options: Any) -> None:
        data = settings.SLUICE.data
        try:
            if options["check"]:
                with backups.opened(source, source.absolute().parent) as place:
                    backups.check(place)
                self.stdout.write(f"{source} is whole and undamaged")
                return
            made = backups.restore(source, data)
        except backups.BackupFailed as error:
            raise CommandError(str(error), returncode=1) from error
        self.stdout.write(f"restored {source} into {data}: {made.files} files, {made.bytes / 2**20:.1f} MiB")
