"""Pages of bans: who is kept out, by client id, user or address."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from console import dialogs, lists
from console.accounts.permissions import Permission, requires
from console.devices import actions
from console.devices.forms import AddBan
from console.devices.models import Ban

COLUMNS = (
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


@requires(Permission.VIEW)
@require_safe
def ban_list(request: HttpRequest) -> HttpResponse:
    listing = lists.build(
        request,
        name="bans",
        columns=COLUMNS,
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
