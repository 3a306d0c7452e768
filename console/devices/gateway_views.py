"""Pages of the gateways themselves, and what they answer when they are asked."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from console import kafka, lists, snapshot, traffic
from console.accounts.permissions import Permission, requires
from console.devices import asking, gateways, queries
from console.snapshot.picture import gateway_numbers

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Gateway"), value=lambda g: g.name),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda g: g.state),
    lists.Column(key="clients", label=gettext_lazy("Clients"), value=lambda g: g.row.get("connections"), css="num opt"),
    lists.Column(key="sessions", label=gettext_lazy("Sessions"), value=lambda g: g.row.get("sessions"), css="num opt2"),
    lists.Column(key="in", label=gettext_lazy("Received/s"), value=lambda g: g.row.get("rate"), css="num"),
    lists.Column(key="out", label=gettext_lazy("Sent/s"), value=lambda g: g.row.get("out_rate"), css="num opt"),
    lists.Column(
        key="waiting", label=gettext_lazy("Wait for the broker"), value=lambda g: g.row.get("waiting"), css="num opt2"
    ),
    lists.Column(
        key="refused", label=gettext_lazy("Refused"), value=lambda g: g.row.get("refused_connects"), css="num opt2"
    ),
    lists.Column(key="started", label=gettext_lazy("Started"), value=lambda g: g.row.get("started"), css="num opt"),
)
ADDRESS_COLUMNS = (
    lists.Column(key="host", label=gettext_lazy("Address")),
    lists.Column(key="now", label=gettext_lazy("Now")),
    lists.Column(key="times", label=gettext_lazy("Refused in all"), css="num"),
    lists.Column(key="latest", label=gettext_lazy("Last"), css="num opt"),
    lists.Column(key="do", label=gettext_lazy("Change"), css="num", quiet=True),
)


@requires(Permission.VIEW)
@require_safe
def gateway_list(request: HttpRequest) -> HttpResponse:
    picture = snapshot.current()
    rows, numbers = gateways.known(picture), picture.live("cluster") or {}
    listing = lists.build(
        request,
        name="gateways",
        columns=COLUMNS,
        rows=rows,
        row_template="devices/_gateway.html",
        search=lambda gateway: gateway.name,
        sort="name",
        placeholder=_("Filter gateways by name"),
        empty=lists.Empty(
            title=_("No gateway is heard of"),
            hint=_("Each tells every two seconds how it is. Devices can't connect without one."),
            command="python -m gateway",
        ),
        refresh_on="cluster/gateway_states",
        drawn_at=numbers["gateway_states"],
    )
    floods = lists.Table(
        name="floods",
        title=_("Addresses that are slowed down now, or were refused within the last hour"),
        columns=ADDRESS_COLUMNS,
        rows=gateways.troubled_addresses(picture),
        row_template="devices/_address.html",
        more=(reverse("console:device-refused"), _("All refused")),
        empty=lists.Empty(title=_("Nobody is slowed down, and nobody was refused within the last hour"), sampled=False),
    )
    context = {
        "tab": "gateways",
        "floods": floods,
        "numbers": numbers,
    }
    return lists.respond(request, listing, "devices/gateways.html", context)


@requires(Permission.VIEW)
@require_safe
def gateway(request: HttpRequest, name: str) -> HttpResponse:
    picture = snapshot.current()
    found = gateways.one(picture, name)
    if found is None:
        title = _("Nothing is heard of a gateway %(name)s.") % {"name": name}
        return render(request, "error.html", {"title": title, "status": 404}, status=404)
    counts = traffic.counts(picture, found.key, traffic.OF_A_GATEWAY)
    context = {
        "gateway": found,
        "counts": counts,
        "kept": queries.held_by(name),
        "states": str(gateway_numbers(picture)["gateway_states"]),  # not to be grouped by thousands
    }
    return render(request, "devices/gateway.html", context)


@never_cache
@requires(Permission.VIEW)
@require_safe
def session(request: HttpRequest, client_id: str) -> HttpResponse:
    """A part of the client's page: what the gateway that holds its session says of it."""
    found, trouble = None, ""
    try:
        found = asking.session(client_id)
    except (kafka.ClientError, kafka.SettingsError) as error:
        trouble = str(error)
    context = {"client_id": client_id, "session": found, "trouble": trouble, "asked": True}
    return render(request, "devices/_session.html", context)
