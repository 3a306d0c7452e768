"""Quotas in words: whom one limits, and by how much. The names are Kafka's (KIP-13, 124, 546, 599, 612)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.utils.translation import gettext_lazy as _

from console.kafka import types

EVERYBODY = "*"  # in forms and addresses: the default of that kind
PARTS = (("user", _("User")), ("client_id", _("Client id")), ("ip", _("Address")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`label` asks for it in its unit; `short` names it beside a value that has one. `form`: size, percent or count."""

    name: str
    label: Any
    short: Any
    form: str


LIMITS: Sequence[Limit] = (
    Limit(name="producer_byte_rate", label=_("Writes, bytes a second"), short=_("Writes"), form="size"),
    Limit(name="consumer_byte_rate", label=_("Reads, bytes a second"), short=_("Reads"), form="size"),
    Limit(name="request_percentage", label=_("Request time, % of a thread"), short=_("Request time"), form="percent"),
    Limit(
        name="controller_mutation_rate",
        label=_("Topic changes, partitions a second"),
        short=_("Topic changes"),
        form="count",
    ),
    Limit(
        name="connection_creation_rate", label=_("New connections a second"), short=_("New connections"), form="count"
    ),
)
OF_ADDRESSES = frozenset({"connection_creation_rate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One quota as the list shows it."""

    quota: types.Quota

    @property
    def who(self) -> list[tuple[Any, str]]:
        """(kind, name) of each part; the name of a default is "*"."""
        entity = self.quota.entity
        named = [(label, getattr(entity, field)) for field, label in PARTS]
        return [(label, name or EVERYBODY) for label, name in named if name is not None]

    @property
    def text(self) -> str:
        return " ".join(f"{label} {name}" for label, name in self.who)

    @property
    def given(self) -> dict[str, str]:
        """The entity as an address names it."""
        return address(self.quota.entity)

    @property
    def query(self) -> str:
        return urlencode(self.given)

    def limit(self, name: str) -> float | None:
        return self.quota.limits.get(name)

    @property
    def limits(self) -> list[tuple[Limit, float]]:
        """Those that are set."""
        found = [(limit, self.limit(limit.name)) for limit in LIMITS]
        return [(limit, value) for limit, value in found if value is not None]


def address(entity: types.QuotaEntity) -> dict[str, str]:
    named = {field: getattr(entity, field) for field, _label in PARTS}
    return {field: name or EVERYBODY for field, name in named.items() if name is not None}


def entity(given: Any) -> types.QuotaEntity:
    """From a form's or an address's fields; absent and empty ones are no part of it."""
    names = {field: str(given.get(field) or "").strip() for field, _label in PARTS}
    return types.QuotaEntity(**{field: "" if name == EVERYBODY else name for field, name in names.items() if name})


def reader(name: str) -> Callable[[Row], float | None]:
    """Reads one limit of a row."""
    return lambda row: row.limit(name)
