"""Pages of quotas."""

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from console import deadline, dialogs, kafka, lists
from console.accounts.permissions import Permission, requires
from console.kafka import types
from console.quotas import actions, limits
from console.quotas.forms import SetQuota

COLUMNS = (
    lists.Column(key="who", label=gettext_lazy("Who"), value=lambda row: row.text),
    lists.Column(key="limits", label=gettext_lazy("Limits"), sortable=False, csv=False, css="opt"),
    *(
        lists.Column(key=limit.name, label=limit.label, value=limits.reader(limit.name), sortable=False, shown=False)
        for limit in limits.LIMITS
    ),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num"),
)


@requires(Permission.ACCESS_VIEW)
@require_safe
def quota_list(request: HttpRequest) -> HttpResponse:
    answers = deadline.gather({"quotas": lambda: kafka.admin().quotas()})
    rows = [limits.Row(quota=quota) for quota in answers["quotas"] or ()]
    listing = lists.build(
        request,
        name="quotas",
        columns=COLUMNS,
        rows=[row for row in rows if not (row.quota.entity.user or "").startswith("__")],
        row_template="quotas/_row.html",
        search=lambda row: row.text,
        sort="who",
        placeholder=_("Filter by user, client id or address"),
        empty=lists.Empty(
            title=_("No quotas"),
            hint=_("Without one, nobody is slowed down. A quota slows its clients, it refuses nothing."),
            command="kafka-configs.sh --alter --entity-type users --entity-name … --add-config producer_byte_rate=…",
            sampled=False,
            known=answers["quotas"] is not None,
        ),
    )
    return lists.respond(request, listing, "quotas/list.html", {"missing": answers.missing})


@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def put(request: HttpRequest) -> HttpResponse:
    """`?user=…&client_id=…&ip=…` changes the quota of exactly that entity ("*": the default); without, a new one."""
    entity = limits.entity(request.GET)
    fixed = bool(limits.address(entity))
    initial = _limits_of(entity) if fixed and request.method != "POST" else {}
    form = SetQuota(request.POST or None, entity=entity if fixed else None, initial=initial)

    def act() -> HttpResponse:
        actions.put(actor=request.user, entity=form.whom(), wanted=form.wanted())
        return dialogs.done(request, reverse("console:quota-list"), _("The quota is in force."))

    errors: dialogs.Errors = {actions.NoLimit: None, actions.InternalUser: None, kafka.ClusterError: None}
    row = limits.Row(quota=types.Quota(entity, {})) if fixed else None
    return dialogs.submit(request, "quotas/edit.html", form, act, errors=errors, context={"row": row})


def _limits_of(entity: types.QuotaEntity) -> dict[str, float]:
    """What it has now. Raises ClientError when the broker doesn't tell in time: a form without would end it all."""
    answers = deadline.gather({"quotas": lambda: kafka.admin().quotas()})
    if answers["quotas"] is None:
        raise kafka.ClientError("; ".join(answers.missing.values()))
    return next((dict(quota.limits) for quota in answers["quotas"] if quota.entity == entity), {})


@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest) -> HttpResponse:
    entity = limits.entity(request.GET)
    if request.method == "POST":
        try:
            actions.remove(actor=request.user, entity=entity)
        except actions.InternalUser as error:
            raise Http404(str(error)) from error
        return dialogs.done(request, reverse("console:quota-list"), _("The quota was removed."))
    return dialogs.show(request, "quotas/remove.html", {"row": limits.Row(quota=types.Quota(entity, {}))})
