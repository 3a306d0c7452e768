"""What audit pages show: entries by who, what, on what; and what an entry changed, field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from console.audit.models import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field of an entry. A side is None where the field isn't there."""

    field: str
    before: Any
    after: Any

    @property
    def changed(self) -> bool:
        return bool(self.before != self.after)


def search(rows: QuerySet[Entry], text: str) -> QuerySet[Entry]:
    """Every word must be in the actor, the action or the name."""
    for word in text.split():
        rows = rows.filter(
            Q(actor__icontains=word) | Q(action__icontains=word) | Q(name__icontains=word) | Q(address__startswith=word)
        )
    return rows


def differences(entry: Entry) -> list[Difference]:
    """Before against after: by field where both are objects (or nothing), else as one."""
    before, after = entry.before, entry.after
    if before is None and after is None:
        return []
    if not all(side is None or isinstance(side, Mapping) for side in (before, after)):
        return [Difference(field="", before=before, after=after)]
    fields = [*(before or {}), *(field for field in (after or {}) if field not in (before or {}))]
    return [Difference(field=f, before=(before or {}).get(f), after=(after or {}).get(f)) for f in fields]
