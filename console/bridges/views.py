"""Pages of bridges."""

from dataclasses import asdict

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from console import dialogs, lists, outbox, records, snapshot, traffic
from console.accounts.permissions import Permission, requires
from console.bridges import actions
from console.bridges.forms import BridgeForm
from console.bridges.models import Bridge
from console.definitions import Wrong

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Bridge"), value=lambda b: b.name, order="name"),
    lists.Column(key="state", label=gettext_lazy("State"), sortable=False, csv=False),
    lists.Column(key="address", label=gettext_lazy("Upstream"), value=lambda b: b.address, order="address"),
    lists.Column(key="in", label=gettext_lazy("In/s"), sortable=False, csv=False, css="num opt"),
    lists.Column(key="out", label=gettext_lazy("Out/s"), sortable=False, csv=False, css="num opt"),
    lists.Column(key="lag", label=gettext_lazy("Still to send"), sortable=False, csv=False, css="num opt"),
    lists.Column(
        key="changed", label=gettext_lazy("Changed"), value=lambda b: b.changed, order="changed", css="num opt2"
    ),
)


@requires(Permission.VIEW)
@require_safe
def bridge_list(request: HttpRequest) -> HttpResponse:
    listing = lists.build(
        request,
        name="bridges",
        columns=COLUMNS,
        rows=Bridge.objects.all(),
        row_template="bridges/_row.html",
        search=lambda found, text: found.filter(
            Q(name__icontains=text) | Q(address__icontains=text) | Q(note__icontains=text)
        ),
        sort="name",
        placeholder=_("Filter bridges by name or address"),
        empty=lists.Empty(
            title=_("No bridges"),
            hint=_("A bridge takes in messages of another MQTT broker, and sends messages there."),
            sampled=False,
        ),
    )
    return lists.respond(request, listing, "bridges/list.html", {"waiting": outbox.waiting()})


@requires(Permission.VIEW)
@require_safe
def bridge(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Bridge, name=name)
    elsewhere = ("address", "enabled", "password", "ca", "inbound", "local_prefix", "outbound", "remote_prefix")
    record = found.record()
    context = {
        "bridge": found,
        "record": record,
        "fields": records.described(BridgeForm, asdict(record), leave_out=elsewhere),
        "now": snapshot.current().traffic.get(f"bridge/{name}", {}),
        "counts": traffic.counts(snapshot.current(), f"bridge/{name}", traffic.OF_A_BRIDGE),
    }
    return render(request, "bridges/bridge.html", context)


@never_cache
@requires(Permission.BRIDGE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    form = BridgeForm(request.POST or None)

    def act() -> HttpResponse:
        data = form.cleaned_data
        made = actions.create(actor=request.user, record=form.record(), password=data["password"], note=data["note"])
        return _done(request, made.name, _("Bridge %(name)s was created.") % {"name": made.name})

    errors: dialogs.Errors = {actions.BridgeExists: "name", Wrong: None}
    return dialogs.submit(request, "bridges/edit.html", form, act, errors=errors)


@never_cache
@requires(Permission.BRIDGE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Bridge, name=name)
    initial = {key: value for key, value in found.definition.items() if key != "password"}
    form = BridgeForm(request.POST or None, initial={**initial, "note": found.note}, named=name)

    def act() -> HttpResponse:
        data = form.cleaned_data
        record, password, note = form.record(), data["password"], data["note"]
        actions.edit(actor=request.user, bridge=found, record=record, password=password, note=note)
        return _done(request, name, _("Bridge %(name)s was changed.") % {"name": name})

    errors: dialogs.Errors = {actions.PasswordNeeded: "password", Wrong: None}
    return dialogs.submit(request, "bridges/edit.html", form, act, errors=errors, context={"name": name})


@requires(Permission.BRIDGE_MANAGE)
@require_POST
def enable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, bridge=get_object_or_404(Bridge, name=name), enabled=True)
    return _done(request, name, _("Bridge %(name)s is in force.") % {"name": name})


@requires(Permission.BRIDGE_MANAGE)
@require_POST
def disable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, bridge=get_object_or_404(Bridge, name=name), enabled=False)
    return _done(request, name, _("Bridge %(name)s is not in force any more.") % {"name": name})


@requires(Permission.BRIDGE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Bridge, name=name)

    def act() -> HttpResponse:
        actions.delete(actor=request.user, bridge=found)
        said = _("Bridge %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:bridge-list"), said)

    return dialogs.confirm(request, "bridges/delete.html", name, act)


def _done(request: HttpRequest, name: str, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:bridge", args=[name]), said)
