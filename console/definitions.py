"""Routes and bridges: rows that people edit, each with a record that gateways follow in a compacted topic.

What changes them is the same for both: the row with its record in one transaction, audit, announcement. A slice brings
its `Kind`; its actions ask for the permission first, and for the gateway's own validation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from console import announcements, audit, outbox


class Wrong(Exception):
    """A gateway could do nothing with it. `problems` says why, each `field: text`."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("; ".join(found))
        self.problems = found


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """`noun`: as actions are named in the audit. `described`: what the audit keeps of a row."""

    noun: str
    topic: str
    described: Callable[[Any], Mapping[str, Any]]

    def create(self, *, actor: Any, row: Any) -> None:
        """`row` is new and has taken its record."""
        self._change(actor, "create", row, after=self.described(row))

    def edit(self, *, actor: Any, row: Any, before: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> None:
        """`row` has taken its new record. `more`: what the audit is to know beside."""
        self._change(actor, "edit", row, before=before, after={**self.described(row), **(more or {})})

    def enable(self, *, actor: Any, row: Any, enabled: bool) -> None:
        before = {"enabled": row.enabled}
        row.take(replace(row.record(), enabled=enabled))
        self._change(actor, "enable" if enabled else "disable", row, before=before, after={"enabled": enabled})

    def delete(self, *, actor: Any, row: Any) -> None:
        name, before = row.name, self.described(row)
        with (
            audit.change(actor, f"{self.noun}.delete", kind=self.noun, name=name, before=before),
            transaction.atomic(),
        ):
            row.delete()
            outbox.put(self.topic, name, None)
        announcements.changed(self.noun, name)

    def _change(
        self,
        actor: Any,
        verb: str,
        row: Any,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any],
    ) -> None:
        action = f"{self.noun}.{verb}"
        with (
            audit.change(actor, action, kind=self.noun, name=row.name, before=before, after=after),
            transaction.atomic(),
        ):
            row.save()
            outbox.put(self.topic, row.name, row.encoded())
        announcements.changed(self.noun, row.name)
