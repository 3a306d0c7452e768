"""`manage.py backup`: a copy of the whole product, taken while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from console import backups


class Command(BaseCommand):
    help = "Copy the whole product into a new folder, or a new file whose name ends in .tar; it may be running."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("target", type=Path, help="a new folder, or a new file that ends in .tar")

    def handle(self, *args: Any, target: Path, **options: Any) -> None:
        sluice = settings.SLUICE
        try:
            made = backups.backup(sluice.data, target, database_url=sluice.database_url, kafka=sluice.kafka)
        except backups.BackupFailed as error:
            raise CommandError(str(error), returncode=1) from error
        for note in made.notes:
            self.stdout.write(f"note: {note}")
        self.stdout.write(f"backed up to {target}: {made.files} files, {made.bytes / 2**20:.1f} MiB")
