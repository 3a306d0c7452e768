"""The Overview's tables: what is longest, busiest and furthest behind, from the picture alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from console import lists

GROUPS = (
    lists.Column(key="group", label=gettext_lazy("Group")),
    lists.Column(key="lag", label=gettext_lazy("Lag"), css="num"),
    lists.Column(key="eta", label=gettext_lazy("Caught up in"), css="num opt"),
)
TOPICS = (
    lists.Column(key="topic", label=gettext_lazy("Topic")),
    lists.Column(key="in", label=gettext_lazy("In/s"), css="num"),
    lists.Column(key="messages", label=gettext_lazy("Messages"), css="num opt"),
)
PREFIXES = (
    lists.Column(key="prefix", label=gettext_lazy("Topic prefix")),
    lists.Column(key="rate", label=gettext_lazy("Messages/s"), css="num"),
    lists.Column(key="messages", label=gettext_lazy("Messages"), css="num opt"),
    lists.Column(key="refused", label=gettext_lazy("Refused"), css="num opt"),
    lists.Column(key="dropped", label=gettext_lazy("Dropped"), css="num opt2"),
    lists.Column(key="expired", label=gettext_lazy("Expired"), css="num opt2"),
    lists.Column(key="dead_lettered", label=gettext_lazy("Dead letters"), css="num opt"),
)


def of_overview(found: Mapping[str, Any]) -> dict[str, lists.Table]:
    """From what `queries.overview` found."""
    return {
        "lagging": _table(
            "lag",
            _("Groups by lag"),
            GROUPS,
            found["top_groups"],
            row="group",
            more=(reverse("console:group-list"), _("All groups")),
            none=_("No consumer groups yet"),
            hint=_("A group appears when the first consumer joins it."),
        ),
        "busy": _table(
            "busy",
            _("Busiest topics"),
            TOPICS,
            found["busiest"],
            row="topic",
            more=(reverse("console:topic-list") + "?sort=-in", _("All topics")),
            none=_("No topics yet"),
            hint=_("A topic appears when it is created here, or when a client writes to it."),
        ),
        "mqtt": _table(
            "prefixes",
            _("Busiest MQTT topics"),
            PREFIXES,
            found["prefixes"],
            row="prefix",
            more=(reverse("console:route-list"), _("Routes")),
            none=_("No MQTT messages yet"),
            hint=_("What devices publish is counted here by the first levels of its topic."),
        ),
    }


def _table(
    name: str,
    title: str,
    columns: Sequence[lists.Column],
    rows: Sequence[Any],
    *,
    row: str,
    more: tuple[str, str],
    none: str,
    hint: str,
) -> lists.Table:
    return lists.Table(
        name=name,
        title=title,
        columns=columns,
        rows=rows,
        row_template=f"dashboard/_{row}.html",
        css="tops",
        more=more,
        empty=lists.Empty(title=none, hint=hint),
    )
