"""Pages of pending deliveries."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, kafka
from console.accounts.permissions import Permission, requires
from console.delays import actions, queries

LONGEST = 249


@requires(Permission.VIEW)
@require_safe
def pending(request: HttpRequest) -> HttpResponse:
    given = {name: request.GET.get(name, "").strip()[:LONGEST] for name in ("target", "key", "id")}
    wanted = queries.Search(**given, after=queries.place(request.GET.get("after", "")))
    found = queries.search(wanted)
    tiles = [
        (_("Pending"), found.counts.pending if found.counts is not None else None),
        (_("Due within a minute"), found.horizon("late", "minute")),
        (_("Due within an hour"), found.horizon("late", "minute", "hour")),
        (_("Overdue"), found.horizon("late")),
    ]
    kept = urlencode({name: text for name, text in given.items() if text})
    context: dict[str, Any] = {"search": wanted, "found": found, "tiles": tiles, "kept": kept}
    if getattr(request, "htmx", None) and request.htmx.target == "found":  # type: ignore[attr-defined]  # set by the middleware
        return render(request, "delays/list.html#results", context)
    return render(request, "delays/list.html", context)


@requires(Permission.DELIVERY_CANCEL)
@require_http_methods(["GET", "HEAD", "POST"])
def cancel(request: HttpRequest, partition: int, row: int) -> HttpResponse:
    """GET: the question. POST: taken back, or said why not."""
    given = {name: request.GET.get(name, "")[:LONGEST] for name in ("target", "id")}
    problem = ""
    if request.method == "POST":
        try:
            actions.cancel(actor=request.user, partition=partition, row=row, **given)
        except actions.TooLate:
            problem = _("It is not pending any more: it was delivered, or taken back before.")
        except kafka.ClientError as error:
            problem = kafka.reason(error)
        else:
            return dialogs.done(request, reverse("console:delay-list"), _("The delivery was taken back."))
    context = {"partition": partition, "row": row, "problem": problem, **given}
    return dialogs.show(request, "delays/cancel.html", context, refused=bool(problem))
