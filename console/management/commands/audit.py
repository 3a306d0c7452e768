"""`manage.py audit verify`: walks the audit chain and says whether it holds."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from console.audit.verify import verify


class Command(BaseCommand):
    help = "Verify the audit chain."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_subparsers(dest="verb", required=True).add_parser("verify", help="walk the chain from its start")

    def handle(self, *args: Any, **options: Any) -> None:
        verdict = verify()
        if verdict.reason:
            place = "at its end" if verdict.broken_at is None else f"at entry {verdict.broken_at}"
            raise CommandError(f"the audit chain is broken {place}: {verdict.reason}")
        self.stdout.write(f"{verdict.entries} entries, the chain holds")
