"""Overview, the charts' history, search over everything, and the error pages."""

import time
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from console import history as store
from console import snapshot, storage
from console.accounts.permissions import Permission, requires
from console.dashboard import queries, tables

WINDOWS = (300, 900, 3600, 6 * 3600, 24 * 3600)


@requires(Permission.VIEW)
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    found = queries.overview(snapshot.current())
    return render(request, "dashboard/overview.html", {**found, **tables.of_overview(found)})


@requires(Permission.VIEW)
@require_safe
def storage_banner(request: HttpRequest) -> HttpResponse:
    """`?shown=…` → the banner over every page, or 204 where that is what the page shows already."""
    if request.GET.get("shown", "") == storage.shown():
        return HttpResponse(status=204)
    return render(request, "parts/storage.html")


@requires(Permission.VIEW)
@require_safe
def history(request: HttpRequest) -> HttpResponse:
    """`?series=cluster/in&series=cluster/out&window=3600` → {"at": [s…], "values": [[…]…]}; null: not known."""
    series = [name for name in request.GET.getlist("series")[:8] if len(name) <= 600]
    try:
        window = min(max(int(request.GET.get("window", "3600")), 60), 31 * 86400)
    except ValueError:
        return JsonResponse({"error": _("The window is a number of seconds.")}, status=400)
    columns = store.read(series, now=time.time(), window=window)
    return JsonResponse({"at": columns.at, "values": columns.values, "step": columns.step})


@requires(Permission.VIEW)
@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """What the field in the top bar finds: pages, topics, groups, devices and clients whose name holds every word."""
    text = request.GET.get("q", "").strip()[:200]
    context: dict[str, Any] = {"text": text, "hits": queries.search(snapshot.current(), text, request) if text else []}
    return render(request, "dashboard/search.html", context)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    context = {"title": _("There is nothing here."), "status": 404}
    return render(request, "error.html", context, status=404)


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    context = {"title": _("Your role doesn't permit this."), "status": 403}
    return render(request, "error.html", context, status=403)


def broken(request: HttpRequest) -> HttpResponse:
    context = {"title": _("Something went wrong on our side."), "status": 500}
    return render(request, "error.html", context, status=500)
