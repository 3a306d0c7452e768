"""Pages of devices."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from console import dialogs, lists, outbox, snapshot, traffic
from console.accounts.permissions import Permission, holds, requires
from console.devices import actions, client_views, queries, refusals
from console.devices.forms import AddDevice, EditDevice, NewPassword
from console.devices.models import Device

DEVICE_COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Device"), value=lambda d: d.name, order="name"),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda d: d.online, order="online"),
    lists.Column(key="since", label=gettext_lazy("Since"), value=lambda d: d.since, order="since", css="num opt"),
    lists.Column(key="address", label=gettext_lazy("Address"), value=lambda d: d.address, order="address", css="opt2"),
    lists.Column(
        key="client", label=gettext_lazy("Client id"), value=lambda d: d.client_id, order="client_id", css="opt2"
    ),
    lists.Column(
        key="labels", label=gettext_lazy("Labels"), value=lambda d: " ".join(d.labels), sortable=False, css="opt"
    ),
    lists.Column(
        key="created", label=gettext_lazy("Added"), value=lambda d: d.created, order="created", css="num opt2"
    ),
)
STATE = lists.Filter(
    name="state",
    label=gettext_lazy("State"),
    choices=(
        lists.Choice(value="all", label=gettext_lazy("All devices")),
        lists.Choice(value="online", label=gettext_lazy("Online")),
        lists.Choice(value="offline", label=gettext_lazy("Offline")),
        lists.Choice(value="refused", label=gettext_lazy("Refused lately")),
        lists.Choice(value="disabled", label=gettext_lazy("Disabled")),
    ),
)


TAKEN: dialogs.Errors = {actions.ClientIdTaken: "client_id", actions.SubjectTaken: "subject"}


@requires(Permission.VIEW)
@require_safe
def device_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    listing = lists.build(
        request,
        name="devices",
        columns=DEVICE_COLUMNS,
        rows=queries.by_state(Device.objects.with_presence(), lists.chosen(request, STATE)),
        row_template="devices/_row.html",
        search=queries.find_devices,
        sort="name",
        filters=(STATE,),
        placeholder=_("Filter devices by name, client id or label"),
        empty=lists.Empty(
            title=_("No devices yet"),
            hint=_("A device signs in with a name and a password made here."),
            command="manage.py device add pump-7",
            sampled=False,
        ),
        refresh_on="cluster/devices",
        drawn_at=picture.totals.devices,
    )
    context = {"tab": "devices", "waiting": outbox.waiting()}
    return lists.respond(request, listing, "devices/list.html", context)


@requires(Permission.VIEW)
@require_safe
def device(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Device.objects.with_presence(), name=name)
    clients = queries.clients_of(found)
    context = {
        "device": found,
        "clients": clients,
        "traffic": [
            (client, traffic.counts(snapshot.current(), f"device/{client.client_id}", traffic.OF_A_DEVICE))
            for client in clients
            if client.online
        ],
        "policies": found.policies.all(),
        "changes": queries.changes_of(found) if holds(request.user, Permission.AUDIT_VIEW) else (),  # type: ignore[arg-type]  # the middleware's user is ours
        "command": queries.connect_command(found.name, found.client_id),
        "refused": client_views.refused_table(refusals.of_device(found)),
        "bans": queries.bans_on(found),
    }
    return render(request, "devices/device.html", context)


@never_cache
@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    form = AddDevice(request.POST or None)

    def act() -> HttpResponse:
        name = form.cleaned_data["name"]
        secret = actions.add(actor=request.user, name=name, **_given(form))
        return _secret(request, _("Device %(name)s was added.") % {"name": name}, name, secret)

    errors: dialogs.Errors = {actions.DeviceExists: "name", **TAKEN}
    return dialogs.submit(request, "devices/edit.html", form, act, errors=errors)


@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Device, name=name)
    initial = {
        "client_id": found.client_id,
        "labels": ", ".join(found.labels),
        "policies": found.policies.all(),
        "note": found.note,
        "subject": found.subject,
        **found.limits,
    }
    form = EditDevice(request.POST or None, initial=initial)

    def act() -> HttpResponse:
        actions.edit(actor=request.user, device=found, **_given(form))
        return _done(request, name, _("Device %(name)s was changed.") % {"name": name})

    return dialogs.submit(request, "devices/edit.html", form, act, errors=TAKEN, context={"name": name})


@never_cache
@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def rotate(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Device, name=name)
    form = NewPassword(request.POST or None)

    def act() -> HttpResponse:
        chosen = form.cleaned_data["password"]
        secret = actions.rotate(actor=request.user, device=found, password=chosen)
        said = _("%(name)s has a new password.") % {"name": name}
        return _done(request, name, said) if chosen else _secret(request, said, name, secret)

    return dialogs.submit(request, "devices/rotate.html", form, act, context={"name": name})


@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def revoke(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Device, name=name)

    def act() -> HttpResponse:
        actions.revoke(actor=request.user, device=found)
        return _done(request, name, _("%(name)s can't sign in with a password any more.") % {"name": name})

    return dialogs.confirm(request, "devices/revoke.html", name, act)


@requires(Permission.DEVICE_MANAGE)
@require_POST
def enable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, device=get_object_or_404(Device, name=name), enabled=True)
    return _done(request, name, _("Device %(name)s is enabled.") % {"name": name})


@requires(Permission.DEVICE_MANAGE)
@require_POST
def disable(request: HttpRequest, name: str) -> HttpResponse:
    actions.enable(actor=request.user, device=get_object_or_404(Device, name=name), enabled=False)
    return _done(request, name, _("Device %(name)s is disabled.") % {"name": name})


@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Device, name=name)

    def act() -> HttpResponse:
        actions.delete(actor=request.user, device=found)
        said = _("Device %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:device-list"), said)

    return dialogs.confirm(request, "devices/delete.html", name, act)


def _given(form: EditDevice) -> dict[str, Any]:
    data = form.cleaned_data
    given = {name: data[name] for name in ("client_id", "labels", "note", "subject")}
    return {**given, "policies": list(data["policies"]), "limits": form.limits()}


def _secret(request: HttpRequest, said: str, name: str, secret: str) -> HttpResponse:
    context: dict[str, Any] = {
        "said": said,
        "name": name,
        "secret": secret,
        "next": reverse("console:device", args=[name]),
    }
    return dialogs.show(request, "parts/secret.html", context)


def _done(request: HttpRequest, name: str, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:device", args=[name]), said)
