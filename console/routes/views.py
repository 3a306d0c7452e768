"""Pages of routes, and trying them."""

from dataclasses import asdict
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from console import dialogs, lists, outbox, records, snapshot, traffic
from console.accounts.permissions import Permission, requires
from console.definitions import Wrong
from console.routes import actions, queries
from console.routes.forms import FORMS, Try, TryRecord
from console.routes.models import Route
from gateway.routes import Uplink

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Route"), value=lambda r: r.name, order="name"),
    lists.Column(key="kind", label=gettext_lazy("Kind"), value=lambda r: r.kind, order="kind", css="opt"),
    lists.Column(key="source", label=gettext_lazy("From"), value=lambda r: r.source, order="source"),
    lists.Column(key="target", label=gettext_lazy("To"), value=lambda r: r.target, order="target"),
    lists.Column(
        key="priority", label=gettext_lazy("Priority"), value=lambda r: r.priority, order="priority", css="num opt2"
    ),
    lists.Column(key="rate", label=gettext_lazy("Messages/s"), sortable=False, csv=False, css="num"),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda r: r.enabled, order="enabled", css="opt"),
    lists.Column(
        key="changed", label=gettext_lazy("Changed"), value=lambda r: r.changed, order="changed", css="num opt2"
    ),
)
KIND = lists.Filter(
    name="kind",
    label=gettext_lazy("Kind"),
    choices=(
        lists.Choice(value="all", label=gettext_lazy("All routes")),
        lists.Choice(value="uplink", label=gettext_lazy("Uplink")),
        lists.Choice(value="downlink", label=gettext_lazy("Downlink")),
    ),
)


@requires(Permission.VIEW)
@require_safe
def route_list(request: HttpRequest) -> HttpResponse:
    rows = Route.objects.all()
    if (kind := lists.chosen(request, KIND)) != "all":
        rows = rows.filter(kind=kind)
    listing = lists.build(
        request,
        name="routes",
        columns=COLUMNS,
        rows=rows,
        row_template="routes/_row.html",
        search=lambda found, text: found.filter(
            Q(name__icontains=text) | Q(source__icontains=text) | Q(target__icontains=text) | Q(note__icontains=text)
        ),
        sort="priority",
        filters=(KIND,),
        placeholder=_("Filter routes by name, filter or topic"),
        empty=lists.Empty(
            title=_("No routes"),
            hint=_("Every MQTT message goes to the topic mqtt.messages, keyed by its client id."),
            sampled=False,
        ),
    )
    return lists.respond(request, listing, "routes/list.html", {"waiting": outbox.waiting()})


@requires(Permission.VIEW)
@require_safe
def route(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Route, name=name)
    fields = records.described(FORMS[found.kind], asdict(found.record()), leave_out=("name", "enabled"))
    counted = traffic.counts(snapshot.current(), f"route/{name}", traffic.OF_A_ROUTE)
    record = found.record()
    context = {
        "route": found,
        "fields": fields,
        "counts": counted,
        "landing": queries.landing(snapshot.current(), [record]) if isinstance(record, Uplink) else (),
    }
    return render(request, "routes/route.html", context)


@requires(Permission.ROUTE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest, kind: str) -> HttpResponse:
    form = FORMS[kind](request.POST or None)

    def act() -> HttpResponse:
        made = actions.create(actor=request.user, record=form.record(), note=form.cleaned_data["note"])
        return _done(request, made.name, _("Route %(name)s was created.") % {"name": made.name})

    errors: dialogs.Errors = {actions.RouteExists: "name", Wrong: None}
    return dialogs.submit(request, "routes/edit.html", form, act, errors=errors, context={"kind": kind})


@requires(Permission.ROUTE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Route, name=name)
    form = FORMS[found.kind](request.POST or None, initial={**found.definition, "note": found.note}, named=name)

    def act() -> HttpResponse:
        actions.edit(actor=request.user, route=found, record=form.record(), note=form.cleaned_data["note"])
        return _done(request, name, _("Route %(name)s was changed.") % {"name": name})

    context = {"kind": found.kind, "name": name}
    return dialogs.submit(request, "routes/edit.html", form, act, errors={Wrong: None}, context=context)


@requires(Permission.ROUTE_MANAGE)
@require_POST
def enable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, route=get_object_or_404(Route, name=name), enabled=True)
    return _done(request, name, _("Route %(name)s is in force.") % {"name": name})


@requires(Permission.ROUTE_MANAGE)
@require_POST
def disable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, route=get_object_or_404(Route, name=name), enabled=False)
    return _done(request, name, _("Route %(name)s is not in force any more.") % {"name": name})


@requires(Permission.ROUTE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Route, name=name)

    def act() -> HttpResponse:
        actions.delete(actor=request.user, route=found)
        said = _("Route %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:route-list"), said)

    return dialogs.confirm(request, "routes/delete.html", name, act)


@requires(Permission.VIEW)
@require_http_methods(["GET", "HEAD", "POST"])
def attempt(request: HttpRequest) -> HttpResponse:
    """What the routes in force do with a message (`up`) or a record (`down`). Nothing is sent anywhere."""
    down = request.POST.get("direction") == "down"
    form = Try(request.POST if request.method == "POST" and not down else None, auto_id="up_%s")
    record_form = TryRecord(request.POST if down else None, auto_id="down_%s")
    context: dict[str, Any] = {"form": form, "record_form": record_form, "down": down}
    if request.method == "POST":
        if down and record_form.is_valid():
            data = record_form.cleaned_data
            key = data["key"].encode() if data["key"] else None
            context["outgoing"] = queries.downlink(data["topic"], key=key, value=data["payload"].encode())
        elif not down and form.is_valid():
            context["up"] = queries.uplink(form.message())
    part = "#answer" if request.htmx else ""  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, f"routes/try.html{part}", context)


def _done(request: HttpRequest, name: str, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:route", args=[name]), said)
