"""The Overview's tables: what is longest, busiest and furthest behind, from the picture alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from console import lists
from console.snapshot import Group, Topic

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
        "lagging": _lagging(found["top_groups"]),
        "busy": _busy(found["busiest"]),
        "mqtt": _mqtt(found["prefixes"]),
    }


def _lagging(groups: Sequence[Group]) -> lists.Table:
    return lists.Table(
        name="lag",
        title=_("Groups by lag"),
        columns=GROUPS,
        rows=groups,
        row_template="dashboard/_group.html",
        css="tops",
        more=(reverse("console:group-list"), _("All groups")),
        empty=lists.Empty(
            title=_("No consumer groups yet"), hint=_("A group appears when the first consumer joins it.")
        ),
    )


def _busy(topics: Sequence[Topic]) -> lists.Table:
    return lists.Table(
        name="busy",
        title=_("Busiest topics"),
        columns=TOPICS,
        rows=topics,
        row_template="dashboard/_topic.html",
        css="tops",
        more=(reverse("console:topic-list") + "?sort=-in", _("All topics")),
        empty=lists.Empty(
            title=_("No topics yet"),
            hint=_("A topic appears when it is created here, or when a client writes to it."),
        ),
    )


def _mqtt(prefixes: Sequence[Any]) -> lists.Table:
    return lists.Table(
        name="prefixes",
        title=_("Busiest MQTT topics"),
        columns=PREFIXES,
        rows=prefixes,
        row_template="dashboard/_prefix.html",
        css="tops",
        more=(reverse("console:route-list"), _("Routes")),
        empty=lists.Empty(
            title=_("No MQTT messages yet"),
            hint=_("What devices publish is counted here by the first levels of its topic."),
        ),
    )
