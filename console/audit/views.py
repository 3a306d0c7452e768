"""The audit trail: a list, and one entry with what it changed."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from django.views.decorators.http import require_safe

from console import lists
from console.accounts.permissions import Permission, requires
from console.audit import queries
from console.audit.models import Entry

COLUMNS = (
    lists.Column(key="at", label=gettext_lazy("Time"), value=lambda e: e.at, order="id", css="opt"),
    lists.Column(key="actor", label=gettext_lazy("Who"), value=lambda e: e.actor, order="actor", css="opt"),
    lists.Column(key="action", label=gettext_lazy("Action"), value=lambda e: e.action, order="action"),
    lists.Column(key="name", label=gettext_lazy("On what"), value=lambda e: e.name, order="name"),
    lists.Column(key="outcome", label=gettext_lazy("Outcome"), value=lambda e: e.outcome, order="outcome", css="opt"),
    lists.Column(key="address", label=gettext_lazy("From"), value=lambda e: e.address, order="address", css="opt2"),
)
KINDS = (
    ("topic", gettext_lazy("Topics")),
    ("group", gettext_lazy("Groups")),
    ("letter", gettext_lazy("Dead letters")),
    ("device", gettext_lazy("Devices")),
    ("ban", gettext_lazy("Bans")),
    ("policy", gettext_lazy("Policies")),
    ("route", gettext_lazy("Routes")),
    ("user", gettext_lazy("Users")),
    ("acl", gettext_lazy("ACLs")),
    ("job", gettext_lazy("Jobs")),
    ("account", gettext_lazy("Accounts")),
)
KIND = lists.Filter(
    name="kind",
    label=gettext_lazy("Kind"),
    choices=(
        lists.Choice(value="all", label=gettext_lazy("Everything")),
        *(lists.Choice(value=value, label=label) for value, label in KINDS),
    ),
)
OUTCOME = lists.Filter(
    name="outcome",
    label=gettext_lazy("Outcome"),
    choices=(
        lists.Choice(value="all", label=pgettext_lazy("outcome", "Any outcome")),
        *(lists.Choice(value=value, label=label) for value, label in Entry.Outcome.choices),
    ),
)


@requires(Permission.AUDIT_VIEW)
@require_safe
def entry_list(request: HttpRequest) -> HttpResponse:
    rows = Entry.objects.all()
    if (kind := lists.chosen(request, KIND)) != "all":
        rows = rows.filter(kind=kind)
    if (outcome := lists.chosen(request, OUTCOME)) != "all":
        rows = rows.filter(outcome=outcome)
    listing = lists.build(
        request,
        name="audit",
        columns=COLUMNS,
        rows=rows,
        row_template="audit/_row.html",
        search=queries.search,
        sort="-at",
        filters=(KIND, OUTCOME),
        placeholder=_("Filter by who, action, name or address"),
        empty=lists.Empty(
            title=_("Nothing was changed yet"), hint=_("Every change made here is listed."), sampled=False
        ),
    )
    return lists.respond(request, listing, "audit/list.html")


@requires(Permission.AUDIT_VIEW)
@require_safe
def entry(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(Entry, pk=pk)
    part = "#record" if request.htmx else ""  # type: ignore[attr-defined]  # set by django-htmx
    context = {"entry": found, "differences": queries.differences(found)}
    return render(request, f"audit/entry.html{part}", context)
