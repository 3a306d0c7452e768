"""Pages of clients: whatever connects by MQTT, registered or not, and what was refused."""

from collections.abc import Sequence

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, lists, snapshot, traffic
from console.accounts.permissions import Permission, requires
from console.devices import actions, queries, refusals
from console.devices.models import Device, Presence, Refusal
from console.routes import queries as routes

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
        "refused": refused_table(refused),
        "taken": sum(row.count for row in refusals.take_overs(refused)),
        "landing": routes.landing(snapshot.current()),
    }
    return render(request, "devices/client.html", context)


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


def refused_table(rows: Sequence[Refusal]) -> lists.Table:
    return lists.Table(
        name="refused",
        title=_("Refused connections"),
        columns=REFUSED_COLUMNS,
        rows=rows,
        row_template="devices/_refused.html",
        more=(reverse("console:device-refused"), _("All refused")),
    )
