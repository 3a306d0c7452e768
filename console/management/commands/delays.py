"""`manage.py delays list | counts | cancel`: what is to be delivered later."""

import datetime
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from console import audit, kafka
from console.delays import actions


class Command(BaseCommand):
    help = "List, count and cancel what the delay service is to deliver later."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        found = verbs.add_parser("list", help="pending deliveries, the next due first, one JSON object a line")
        found.add_argument("--target", default="", help="text in the target topic's name")
        found.add_argument("--key", default=None)
        found.add_argument("--id", default="", help="the message id")
        found.add_argument("--limit", type=int, default=100, help="at most so many; 0: all")
        verbs.add_parser("counts", help="how many are pending, by when they are due, as JSON")
        cancel = verbs.add_parser("cancel", help="take pending deliveries back: by key and id, or one by its place")
        cancel.add_argument("--key", default=None)
        cancel.add_argument("--id", default="")
        cancel.add_argument("--partition", type=int, default=None)
        cancel.add_argument("--row", type=int, default=None)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(options)
        except (kafka.ClientError, kafka.SettingsError) as error:
            raise CommandError(str(error), returncode=1) from error
        finally:
            kafka.forget_connections()

    def _list(self, options: dict[str, Any]) -> None:
        left = options["limit"] or None
        key = options["key"].encode() if options["key"] is not None else None
        after = None
        while left is None or left > 0:
            page = kafka.delays().page(
                target=options["target"], key=key, id=options["id"], after=after, limit=min(left or 500, 500)
            )
            for row in page.rows:
                due = datetime.datetime.fromtimestamp(row.due / 1000, datetime.UTC).isoformat(timespec="milliseconds")
                shown = {"due": due, "target": row.target, "id": row.id, "size": row.size}
                shown |= {"key": None if row.key is None else row.key.decode("utf-8", "replace")}
                self.stdout.write(json.dumps({**shown, "partition": row.partition, "row": row.row}, ensure_ascii=False))
            self._complain(page.unknown)
            if not page.more:
                return
            after = page.rows[-1].place
            left = None if left is None else left - len(page.rows)

    def _counts(self, options: dict[str, Any]) -> None:
        counts = kafka.delays().counts()
        found = {"pending": counts.pending, **counts.horizons, "since the start": counts.since}
        self.stdout.write(json.dumps(found))
        self._complain(counts.unknown)

    def _cancel(self, options: dict[str, Any]) -> None:
        by_place = options["partition"] is not None and options["row"] is not None
        if by_place == bool(options["id"]):
            raise CommandError("say either --id (with --key, if it has one), or --partition and --row")
        actor = audit.system("manage.py")
        try:
            if by_place:
                actions.cancel(actor=actor, partition=options["partition"], row=options["row"])
                count: int | None = 1
            else:
                key = options["key"].encode() if options["key"] is not None else None
                count = actions.cancel_by_id(actor=actor, key=key, id=options["id"])
        except actions.TooLate:
            message = "nothing was pending with that: it was delivered, taken back before, or never asked for"
            raise CommandError(message, returncode=1) from None
        self.stdout.write("taken back" if count is None else f"{count} taken back")

    @staticmethod
    def _complain(unknown: Any) -> None:
        if unknown:
            reasons = "; ".join(f"partition {partition}: {why}" for partition, why in sorted(unknown.items()))
            raise CommandError(f"not all of it is known: {reasons}", returncode=1)
