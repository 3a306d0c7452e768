"""Pages of policies, and the simulator."""

from typing import Any

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, lists, outbox
from console.accounts.permissions import Permission, requires
from console.devices.models import Device
from console.policies import actions, queries
from console.policies.forms import CreatePolicy, EditPolicy, Try
from console.policies.models import Policy

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Policy"), value=lambda p: p.name, order="name"),
    lists.Column(
        key="publish",
        label=gettext_lazy("May publish to"),
        value=lambda p: " ".join(p.publish),
        sortable=False,
        css="opt",
    ),
    lists.Column(
        key="subscribe",
        label=gettext_lazy("May subscribe to"),
        value=lambda p: " ".join(p.subscribe),
        sortable=False,
        css="opt2",
    ),
    lists.Column(
        key="denied",
        label=gettext_lazy("Denials"),
        value=lambda p: len(p.deny_publish) + len(p.deny_subscribe),
        sortable=False,
        css="num opt",
    ),
    lists.Column(key="devices", label=gettext_lazy("Devices"), value=lambda p: p.assigned, order="assigned", css="num"),
    lists.Column(
        key="changed", label=gettext_lazy("Changed"), value=lambda p: p.changed, order="changed", css="num opt2"
    ),
)


@requires(Permission.VIEW)
@require_safe
def policy_list(request: HttpRequest) -> HttpResponse:
    listing = lists.build(
        request,
        name="policies",
        columns=COLUMNS,
        rows=Policy.objects.annotate(assigned=Count("devices")),
        row_template="policies/_row.html",
        search=lambda rows, text: rows.filter(
            Q(name__icontains=text)
            | Q(publish__icontains=text)
            | Q(subscribe__icontains=text)
            | Q(note__icontains=text)
        ),
        sort="name",
        placeholder=_("Filter policies by name or topic filter"),
        empty=lists.Empty(
            title=_("No policies"),
            hint=_(
                "While there is none, every client may publish and subscribe everything. The first one closes that."
            ),
            sampled=False,
        ),
    )
    open_to_all = not Policy.objects.exists()
    context = {"open": open_to_all, "waiting": outbox.waiting()}
    return lists.respond(request, listing, "policies/list.html", context)


@requires(Permission.VIEW)
@require_safe
def policy(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Policy.objects.annotate(assigned=Count("devices")), name=name)
    return render(request, "policies/policy.html", {"policy": found, "devices": found.devices.all()[:50]})


@requires(Permission.POLICY_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    form = CreatePolicy(request.POST or None)

    def act() -> HttpResponse:
        made = actions.create(actor=request.user, name=form.cleaned_data["name"], values=form.cleaned_data)
        return _done(request, made.name, _("Policy %(name)s was created.") % {"name": made.name})

    errors: dialogs.Errors = {actions.PolicyExists: "name", actions.Malformed: None}
    context = {"first": not Policy.objects.exists()}
    return dialogs.submit(request, "policies/edit.html", form, act, errors=errors, context=context)


@requires(Permission.POLICY_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Policy, name=name)
    initial = {field: getattr(found, field) for field in actions.FIELDS}
    form = EditPolicy(request.POST or None, initial=initial)

    def act() -> HttpResponse:
        actions.edit(actor=request.user, policy=found, values=form.cleaned_data)
        return _done(request, name, _("Policy %(name)s was changed.") % {"name": name})

    errors: dialogs.Errors = {actions.Malformed: None}
    return dialogs.submit(request, "policies/edit.html", form, act, errors=errors, context={"name": name})


@requires(Permission.POLICY_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, name: str) -> HttpResponse:
    found = get_object_or_404(Policy, name=name)

    def act() -> HttpResponse:
        actions.delete(actor=request.user, policy=found)
        said = _("Policy %(name)s was deleted.") % {"name": name}
        return dialogs.done(request, reverse("console:policy-list"), said)

    context = {"last": Policy.objects.count() == 1}
    return dialogs.confirm(request, "policies/delete.html", name, act, errors=(actions.InUse,), context=context)


@requires(Permission.VIEW)
@require_safe
def attempt(request: HttpRequest) -> HttpResponse:
    """`?device=…&client_id=…&verb=publish|subscribe|receive&topic=…`: the answer, with the policy that decided."""
    asked = "topic" in request.GET
    given = {name: request.GET.get(name, "") for name in ("device", "client_id")}
    form = Try(request.GET if asked else None, initial=given)
    context: dict[str, Any] = {"form": form}
    if asked and form.is_valid():
        data = form.cleaned_data
        device = Device.objects.filter(name=data["device"]).first()
        client_id = data["client_id"] or (device.client_id if device else "") or data["device"]
        verdict = queries.ask(principal=data["device"], client_id=client_id, verb=data["verb"], topic=data["topic"])
        context |= {"verdict": verdict, "asked": data, "client_id": client_id}
        context["stranger"] = bool(data["device"]) and device is None
    part = "#answer" if request.htmx else ""  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, f"policies/try.html{part}", context)


def _done(request: HttpRequest, name: str, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:policy", args=[name]), said)
