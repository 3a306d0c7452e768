"""The message explorer: every choice, position and opened record is in the address."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from console import kafka, snapshot
from console.accounts.permissions import Permission, requires
from console.devices import queries as devices
from console.messages import queries
from console.routes import queries as routes
from gateway import contract

STARTS = (
    ("newest", gettext_lazy("Newest")),
    ("oldest", gettext_lazy("Oldest")),
    ("offset", gettext_lazy("From offset")),
    ("time", gettext_lazy("Since time")),
)
FIELDS = (
    ("any", gettext_lazy("Anywhere")),
    ("key", gettext_lazy("Key")),
    ("value", gettext_lazy("Value")),
    ("header", gettext_lazy("Headers")),
)


@requires(Permission.MESSAGE_READ)
@require_safe
def explorer(request: HttpRequest, name: str) -> HttpResponse:
    known = snapshot.current().topics.get(name)
    partitions = known.partitions if known else 0
    if not partitions:
        found_topic = kafka.admin().topics([name]).get(name)
        if found_topic is None:
            title = _("There is no topic %(name)s.") % {"name": name}
            return render(request, "error.html", {"title": title, "status": 404}, status=404)
        partitions = len(found_topic.partitions)
    context: dict[str, Any] = {
        "topic": known or snapshot.Topic(name=name, partitions=partitions),
        "starts": STARTS,
        "fields": FIELDS,
        "partition_choices": range(partitions),
        "tab": "messages",
    }
    try:
        query = asked(request, name)
    except queries.BadQuery:
        return render(
            request, "messages/explorer.html", {**context, "error": _("This address is not a search.")}, status=400
        )
    context |= {"query": query, "found": queries.search(query, partitions), "base": base(request)}
    if request.htmx and request.htmx.target in ("found", "more"):  # type: ignore[attr-defined]  # set by django-htmx
        part = "rows" if request.htmx.target == "more" else "results"  # type: ignore[attr-defined]  # as above
        return render(request, f"messages/explorer.html#{part}", context)
    return render(request, "messages/explorer.html", context)


@requires(Permission.MESSAGE_READ)
@require_safe
def message(request: HttpRequest, name: str, partition: int, offset: int) -> HttpResponse:
    """One record: a drawer over the explorer, or a page of its own for a copied link."""
    record = queries.one(name, partition, offset)
    context = {
        "topic": snapshot.current().topics.get(name) or snapshot.Topic(name=name),
        "record": record,
        "partition": partition,
        "offset": offset,
        "tab": "messages",
        "origin": _origin(record),
    }
    template = "messages/message.html#record" if request.htmx else "messages/message.html"  # type: ignore[attr-defined]  # django-htmx
    return render(request, template, context, status=200 if record or request.htmx else 404)  # type: ignore[attr-defined]  # as above


@requires(Permission.MESSAGE_READ)
@require_safe
def download(request: HttpRequest, name: str, partition: int, offset: int) -> HttpResponse:
    """The value's bytes as they are, never shown by the browser."""
    record = queries.one(name, partition, offset)
    if record is None or record.value is None:
        return render(request, "error.html", {"title": _("There is no such record."), "status": 404}, status=404)
    response = HttpResponse(record.value, content_type="application/octet-stream")
    response["Content-Disposition"] = f'attachment; filename="record-{partition}-{offset}.bin"'
    return response


def asked(request: HttpRequest, topic: str) -> queries.Query:
    """The search that the address describes; raises BadQuery."""
    given = request.GET
    start = given.get("from", "newest")
    if start not in dict(STARTS):
        raise queries.BadQuery(start)
    return queries.Query(
        topic=topic,
        start=start,
        offset=_number(given.get("offset", "")) or 0,
        since=_since(given.get("since", "")) if start == "time" else 0,
        partition=_number(given.get("partition", "")),
        text=given.get("q", "").strip()[:500],
        within=given.get("in", "any") if given.get("in", "any") in dict(FIELDS) else "any",
        cursor=queries.parsed_cursor(given.get("cursor", "")),
    )


def _origin(record: kafka.Record | None) -> dict[str, Any] | None:
    """Of a record that came from MQTT or HTTP: its client, its topic there, and the route that decides for it now."""
    headers = dict(record.headers or ()) if record is not None else {}
    topic, client = headers.get(contract.H_TOPIC), headers.get(contract.H_CLIENT)
    if not topic or not client:
        return None
    mqtt_topic = topic.decode("utf-8", "replace")
    return {
        "client_id": (client_id := client.decode("utf-8", "replace")),
        "known": devices.is_known(client_id),
        "mqtt_topic": mqtt_topic,
        "route": routes.route_of(mqtt_topic).name,
    }


def base(request: HttpRequest) -> str:
    """The address without its position, to hang the next page's on."""
    parameters = request.GET.copy()
    parameters.pop("cursor", None)
    return parameters.urlencode()


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise queries.BadQuery(text)
    return int(text)


def _since(text: str) -> int:
    """Epoch ms of what a date-time picker or a link gave, in the person's zone unless it names one."""
    if not text:
        raise queries.BadQuery("since")
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise queries.BadQuery(text) from error
    return int((at if at.tzinfo else timezone.make_aware(at)).timestamp() * 1000)
