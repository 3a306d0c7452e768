"""Pages of bridges."""

from dataclasses import asdict
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from console import dialogs, lists, outbox, snapshot, traffic
from console.accounts.permissions import Permission, requires
from console.bridges import actions
from console.bridges.forms import BridgeForm
from console.bridges.models import Bridge
from console.topics.forms import TypeName

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
    return lists.respond(request, listing, "bridges/list.html", {"waiting": outbox.waiting()})  # type: ignore[no-any-return]  # CSV streams


@requires(Permission.VIEW)
@require_safe
def bridge(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Bridge, name=name)
    hidden = ("name", "enabled", "password", "ca", "since", "inbound", "outbound")
    record = found.record()
    context = {
        "bridge": found,
        "record": record,
        "fields": {key: value for key, value in asdict(record).items() if key not in hidden},
        "now": snapshot.current().traffic.get(f"bridge/{name}", {}),
        "counts": traffic.counts(snapshot.current(), f"bridge/{name}", traffic.OF_A_BRIDGE),
    }
    return render(request, "bridges/bridge.html", context)


@never_cache
@requires(Permission.BRIDGE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    form = BridgeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            actions.create(actor=request.user, record=form.record(), password=data["password"], note=data["note"])
        except actions.BridgeExists as error:
            form.add_error("name", str(error))
        except actions.Wrong as error:
            form.show(error.problems)
        else:
            said = _("Bridge %(name)s was created.") % {"name": data["name"]}
            return dialogs.done(request, reverse("console:bridge", args=[data["name"]]), said)
    return dialogs.show(request, "bridges/edit.html", {"form": form}, refused=bool(form.errors))


@never_cache
@requires(Permission.BRIDGE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Bridge, name=name)
    initial = {key: value for key, value in found.definition.items() if key != "password"}
    form = BridgeForm(request.POST or None, initial={**initial, "note": found.note}, named=name)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        try:
            actions.edit(
                actor=request.user, bridge=found, record=form.record(), password=data["password"], note=data["note"]
            )
        except actions.PasswordNeeded as error:
            form.add_error("password", str(error))
        except actions.Wrong as error:
            form.show(error.problems)
        else:
            return _done(request, name, _("Bridge %(name)s was changed.") % {"name": name})
    context: dict[str, Any] = {"form": form, "name": name}
    return dialogs.show(request, "bridges/edit.html", context, refused=bool(form.errors))


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
    form = TypeName(name, request.POST or None)
    if request.method == "POST" and form.is_valid():
        actions.delete(actor=request.user, bridge=found)
        said = _("Bridge %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:bridge-list"), said)
    return dialogs.show(request, "bridges/delete.html", {"name": name, "form": form}, refused=bool(form.errors))


def _done(request: HttpRequest, name: str, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:bridge", args=[name]), said)
