"""What the Overview shows, from the picture alone, and what the top bar's search finds."""

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from console import shell, traffic
from console.accounts.permissions import holds
from console.devices.models import Device, Presence
from console.snapshot import Group, Picture, Topic

TOP = 7
HITS = 8


def overview(picture: Picture) -> dict[str, Any]:
    groups = sorted(picture.user_groups(), key=lambda group: (-(group.lag or 0), group.name))
    busiest = sorted(
        picture.user_topics(), key=lambda topic: (-(topic.in_rate or 0), -(topic.messages or 0), topic.name)
    )
    letters = [topic for topic in picture.dead_letter_topics() if topic.messages]
    numbers = picture.live("cluster") or {}
    prefixes = traffic.busiest_prefixes(picture, TOP)
    return {
        "numbers": numbers,
        "top_groups": groups[:TOP],
        "most_lag": max((group.lag or 0 for group in groups[:TOP]), default=0),
        "busiest": busiest[:TOP],
        "most_in": max((topic.in_rate or 0 for topic in busiest[:TOP]), default=0),
        "dead_letter_topics": len(letters),
        "prefixes": prefixes,
        "most_rate": max((prefix.rate or 0 for prefix in prefixes), default=0),
        "behind": sum(group.health == "bad" for group in groups),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    icon: str
    kind: str
    name: str
    url: str


def search(picture: Picture, text: str, request: HttpRequest) -> list[Hit]:
    words = text.casefold().split()

    def fits(name: str) -> bool:
        return all(word in name.casefold() for word in words)

    hits = [
        Hit(icon=item.icon, kind=_("Page"), name=str(item.label), url=link.url)
        for _title, links in shell.context(request)["navigation"]
        for link in links
        if fits(str((item := link.item).label)) and holds(request.user, item.permission)  # type: ignore[arg-type]  # ours
    ]
    topics = sorted((topic for topic in picture.user_topics() if fits(topic.name)), key=_nearest)
    groups = sorted((group for group in picture.user_groups() if fits(group.name)), key=_nearest)
    hits += [
        Hit(icon="layers", kind=_("Topic"), name=topic.name, url=reverse("console:topic", args=[topic.name]))
        for topic in topics[:HITS]
    ]
    hits += [
        Hit(icon="users", kind=_("Group"), name=group.name, url=reverse("console:group", args=[group.name]))
        for group in groups[:HITS]
    ]
    devices = _named(Device.objects.all(), "name", words)
    clients = [name for name in _named(Presence.objects.all(), "client_id", words) if name not in devices]
    hits += [
        Hit(icon="radio-tower", kind=_("Device"), name=name, url=reverse("console:device", args=[name]))
        for name in devices
    ]
    hits += [
        Hit(icon="plug", kind=_("Client"), name=name, url=reverse("console:device-client", args=[name]))
        for name in clients
    ]
    return hits


def _named(rows: QuerySet[Any], field: str, words: list[str]) -> list[str]:
    """The shortest names that hold every word."""
    for word in words:
        rows = rows.filter(**{f"{field}__icontains": word})
    return list(rows.order_by(Length(field), field).values_list(field, flat=True)[:HITS])


def _nearest(row: Topic | Group) -> tuple[int, str]:
    return (len(row.name), row.name)
