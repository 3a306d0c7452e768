"""Pages of devices, clients and bans."""

from collections.abc import Sequence
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
from console.devices import actions, queries, refusals
from console.devices.forms import AddBan, AddDevice, EditDevice, NewPassword
from console.devices.models import Ban, Device, Presence, Refusal
from console.routes import queries as routes

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
CLIENT_COLUMNS = (
    lists.Column(key="client", label=gettext_lazy("Client id"), value=lambda c: c.client_id, order="client_id"),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda c: c.online, order="online"),
    lists.Column(key="device", label=gettext_lazy("Device"), value=lambda c: c.principal, order="principal", css="opt"),
    lists.Column(key="since", label=gettext_lazy("Since"), value=lambda c: c.since, order="since", css="num opt"),
    lists.Column(key="address", label=gettext_lazy("Address"), value=lambda c: c.address, order="address", css="opt2"),
    lists.Column(
        key="protocol", label=gettext_lazy("Protocol"), value=lambda c: c.protocol_name, order="protocol", shown=False
    ),
    lists.Column(key="queued", label=gettext_lazy("Queued"), value=lambda c: c.queued, order="queued", css="num opt"),
    lists.Column(
        key="queued_bytes",
        label=gettext_lazy("Queued bytes"),
        value=lambda c: c.queued_bytes,
        order="queued_bytes",
        css="num opt2",
    ),
    lists.Column(key="lost", label=gettext_lazy("Dropped"), value=lambda c: c.dropped, order="dropped", shown=False),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num opt"),
)
PRESENT = lists.Filter(
    name="state",
    label=gettext_lazy("State"),
    choices=(
        lists.Choice(value="online", label=gettext_lazy("Online")),
        lists.Choice(value="offline", label=gettext_lazy("Offline")),
        lists.Choice(value="all", label=gettext_lazy("All clients")),
    ),
)
REFUSED_COLUMNS = (
    lists.Column(key="reason", label=gettext_lazy("Reason"), value=lambda r: str(r.explained.why), order="why"),
    lists.Column(key="why", label=gettext_lazy("Code"), value=lambda r: r.why or r.kind, sortable=False, shown=False),
    lists.Column(key="detail", label=gettext_lazy("Detail"), value=lambda r: r.detail, sortable=False, shown=False),
    lists.Column(key="last", label=gettext_lazy("Last"), value=lambda r: r.last, order="last", css="num opt"),
    lists.Column(
        key="client", label=gettext_lazy("Client id"), value=lambda r: r.client_id, order="client_id", css="opt"
    ),
    lists.Column(key="user", label=gettext_lazy("User name"), value=lambda r: r.username, order="username", css="opt"),
    lists.Column(key="host", label=gettext_lazy("Address"), value=lambda r: r.host, order="host", css="opt"),
    lists.Column(key="count", label=gettext_lazy("Times"), value=lambda r: r.count, order="count", css="num opt"),
)
BAN_COLUMNS = (
    lists.Column(key="who", label=gettext_lazy("Who"), value=lambda b: b.value, order="value"),
    lists.Column(key="kind", label=gettext_lazy("Kind"), value=lambda b: b.kind, order="kind", css="opt"),
    lists.Column(key="until", label=gettext_lazy("Until"), value=lambda b: b.until, order="until", css="num"),
    lists.Column(key="reason", label=gettext_lazy("Reason"), value=lambda b: b.reason, order="reason", css="opt"),
    lists.Column(key="by", label=gettext_lazy("By"), value=lambda b: b.by, order="by", css="opt2"),
    lists.Column(
        key="created", label=gettext_lazy("Since"), value=lambda b: b.created, order="created", css="num opt2"
    ),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num"),
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
def client_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    listing = lists.build(
        request,
        name="clients",
        columns=CLIENT_COLUMNS,
        rows=queries.by_state(Presence.objects.all(), lists.chosen(request, PRESENT)),
        row_template="devices/_client.html",
        search=queries.find_clients,
        sort="client",
        filters=(PRESENT,),
        placeholder=_("Filter clients by client id, device, address or gateway"),
        empty=lists.Empty(
            title=_("No client is connected"),
            hint=_("Whatever connects by MQTT appears here, registered or not."),
            command=queries.listen_command(),
            sampled=False,
        ),
        refresh_on="cluster/devices",
        drawn_at=picture.totals.devices,
    )
    return lists.respond(request, listing, "devices/clients.html", {"tab": "clients"})


@requires(Permission.VIEW)
@require_safe
def refused_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    listing = lists.build(
        request,
        name="refused",
        columns=REFUSED_COLUMNS,
        rows=Refusal.objects.all(),
        row_template="devices/_refused.html",
        search=refusals.find,
        sort="-last",
        placeholder=_("Filter by client id, user name, address or reason"),
        empty=lists.Empty(
            title=_("Nobody was refused"),
            hint=_("Connections that a gateway refuses, or ends for the client's fault, appear here with the reason."),
            sampled=False,
        ),
        refresh_on="cluster/refused",
        drawn_at=picture.totals.refused,
    )
    return lists.respond(request, listing, "devices/refused.html", {"tab": "refused"})


@requires(Permission.VIEW)
@require_safe
def ban_list(request: HttpRequest) -> HttpResponse:
    listing = lists.build(
        request,
        name="bans",
        columns=BAN_COLUMNS,
        rows=Ban.objects.all(),
        row_template="devices/_ban.html",
        search=lambda rows, text: rows.filter(value__icontains=text) | rows.filter(reason__icontains=text),
        sort="-created",
        placeholder=_("Filter bans by who or why"),
        empty=lists.Empty(
            title=_("Nobody is banned"), hint=_("A ban keeps a client id, a user or an address out."), sampled=False
        ),
    )
    return lists.respond(request, listing, "devices/bans.html", {"tab": "bans"})


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
        "refused": _refused(refusals.of_device(found)),
        "bans": queries.bans_on(found),
    }
    return render(request, "devices/device.html", context)


@requires(Permission.VIEW)
@require_safe
def client(request: HttpRequest, client_id: str) -> HttpResponse:
    """One client, registered or not: its connection, what waits for it, and when it was refused. What publishes by HTTP
    alone has no connection, and is known by its device."""
    found = Presence.objects.filter(client_id=client_id).first()
    refused = refusals.of_client(client_id)
    if found is None and not refused and not Device.objects.filter(name=client_id).exists():
        title = _("Nothing is known of a client %(client)s.") % {"client": client_id}
        return render(request, "error.html", {"title": title, "status": 404}, status=404)
    counts = traffic.counts(snapshot.current(), f"device/{client_id}", traffic.OF_A_DEVICE)
    context = {
        "client_id": client_id,
        "client": found,
        "counts": counts,
        "refused": _refused(refused),
        "taken": sum(row.count for row in refusals.take_overs(refused)),
        "landing": routes.landing(snapshot.current()),
    }
    return render(request, "devices/client.html", context)


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


@requires(Permission.DEVICE_TAP)
@require_safe
def tap(request: HttpRequest, client_id: str) -> HttpResponse:
    """Where an operator watches a client's packets; the socket does the rest."""
    client = Presence.objects.filter(client_id=client_id).first()
    device = Device.objects.filter(name=client.principal).first() if client and client.principal else None
    return render(request, "devices/tap.html", {"client_id": client_id, "client": client, "device": device})


@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def kick(request: HttpRequest, client_id: str) -> HttpResponse:
    """POST with `clear`: its session and queued messages go too."""
    if request.method == "POST":
        reference = request.POST.get("reference", "").strip()[:500]
        actions.kick(actor=request.user, client_id=client_id, clear="clear" in request.POST, reference=reference)
        said = _("%(client)s is being disconnected.") % {"client": client_id}
        return dialogs.done(request, reverse("console:device-clients"), said)
    return dialogs.show(request, "devices/kick.html", {"client_id": client_id})


@requires(Permission.DEVICE_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def add_ban(request: HttpRequest) -> HttpResponse:
    initial = {"kind": request.GET.get("kind", "client"), "value": request.GET.get("value", "")}
    form = AddBan(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        actions.ban(
            actor=request.user, kind=data["kind"], value=data["value"], until=form.until(), reason=data["reason"]
        )
        return dialogs.done(request, reverse("console:device-bans"), _("%(who)s is banned.") % {"who": data["value"]})
    return dialogs.show(request, "devices/add_ban.html", {"form": form}, refused=bool(form.errors))


@requires(Permission.DEVICE_MANAGE)
@require_POST
def lift(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(Ban, pk=pk)
    actions.lift(actor=request.user, ban=found)
    said = _("%(who)s may connect again.") % {"who": found.value}
    return dialogs.done(request, reverse("console:device-bans"), said)


def _refused(rows: Sequence[Refusal]) -> lists.Table:
    return lists.Table(
        name="refused",
        title=_("Refused connections"),
        columns=REFUSED_COLUMNS,
        rows=rows,
        row_template="devices/_refused.html",
        more=(reverse("console:device-refused"), _("All refused")),
    )


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
