"""Pages of broker users and ACLs."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, kafka, lists
from console.access import actions, queries, rules
from console.access.forms import RESOURCES, CreateAcl, CreateUser, May
from console.accounts.permissions import Permission, requires
from console.kafka import types

USER_COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Name"), value=lambda u: u.name),
    lists.Column(
        key="mechanisms", label=gettext_lazy("Signs in by"), value=lambda u: ", ".join(u.mechanisms), css="opt"
    ),
    lists.Column(key="acls", label=gettext_lazy("ACLs"), value=lambda u: u.acls, css="num"),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num"),
)
ACL_COLUMNS = (
    lists.Column(key="principal", label=gettext_lazy("Who"), value=lambda a: a.principal),
    lists.Column(key="permission", label=gettext_lazy("Permission"), value=lambda a: a.permission.name),
    lists.Column(key="operation", label=gettext_lazy("Operation"), value=lambda a: a.operation.name, css="opt"),
    lists.Column(key="resource", label=gettext_lazy("Resource"), value=lambda a: a.resource.name, css="opt"),
    lists.Column(key="name", label=gettext_lazy("Named"), value=lambda a: a.name, css="opt"),
    lists.Column(key="pattern", label=gettext_lazy("Pattern"), value=lambda a: a.pattern.name, css="opt2"),
    lists.Column(key="host", label=gettext_lazy("From address"), value=lambda a: a.host, css="opt2"),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num"),
)
RESOURCE = lists.Filter(
    name="resource",
    label=gettext_lazy("Resource"),
    choices=(
        lists.Choice(value="all", label=gettext_lazy("Every resource")),
        *(lists.Choice(value=resource.name, label=label) for resource, label in RESOURCES.items()),
    ),
)
PERMISSION = lists.Filter(
    name="permission",
    label=gettext_lazy("Permission"),
    choices=(
        lists.Choice(value="all", label=gettext_lazy("Allow and deny")),
        lists.Choice(value="ALLOW", label=pgettext_lazy("acl", "Allow")),
        lists.Choice(value="DENY", label=pgettext_lazy("acl", "Deny")),
    ),
)


@requires(Permission.ACCESS_VIEW)
@require_safe
def user_list(request: HttpRequest) -> HttpResponse:
    access = queries.access()
    listing = lists.build(
        request,
        name="users",
        columns=USER_COLUMNS,
        rows=access.users,
        row_template="access/_user.html",
        search=lambda user: f"{user.name} {' '.join(user.mechanisms)}",
        sort="name",
        placeholder=_("Filter users by name"),
        empty=lists.Empty(
            title=_("No users yet"),
            hint=_("Applications sign in to the broker with a name and a password made here."),
            command="kafka-configs.sh --alter --entity-type users --entity-name … --add-config SCRAM-SHA-512=[…]",
            sampled=False,
            known="users" not in access.missing,
        ),
    )
    return lists.respond(request, listing, "access/users.html", {"access": access})


@never_cache
@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create_user(request: HttpRequest) -> HttpResponse:
    form = CreateUser(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        try:
            password = actions.create_user(actor=request.user, name=name, mechanisms=form.mechanisms())
        except actions.UserExists as error:
            form.add_error("name", str(error))
        except kafka.ClusterError as error:
            form.add_error("name", kafka.reason(error))
        else:
            return _secret(request, _("User %(name)s was created.") % {"name": name}, name, password)
    return dialogs.show(request, "access/create_user.html", {"form": form}, refused=bool(form.errors))


@never_cache
@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def rotate_user(request: HttpRequest, name: str) -> HttpResponse:
    if request.method == "POST":
        try:
            password = actions.rotate_user(actor=request.user, name=name)
        except (actions.UnknownUser, actions.InternalUser) as error:
            raise Http404(str(error)) from error
        return _secret(request, _("%(name)s has a new password.") % {"name": name}, name, password)
    return dialogs.show(request, "access/rotate_user.html", {"name": name})


@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def revoke_user(request: HttpRequest, name: str) -> HttpResponse:
    form = dialogs.TypeName(name, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            actions.revoke_user(actor=request.user, name=name, with_acls="with_acls" in request.POST)
        except (actions.UnknownUser, actions.InternalUser) as error:
            form.add_error("typed", str(error))
        else:
            said = _("User %(name)s was revoked.") % {"name": name}
            return dialogs.done(request, reverse("console:user-list"), said)
    acls = [acl for acl in queries.access(users=False).acls or () if acl.principal == f"User:{name}"]
    context = {"name": name, "form": form, "acls": acls}
    return dialogs.show(request, "access/revoke_user.html", context, refused=bool(form.errors))


def _secret(request: HttpRequest, said: str, name: str, secret: str) -> HttpResponse:
    context = {"said": said, "name": name, "secret": secret, "next": reverse("console:user-list")}
    return dialogs.show(request, "parts/secret.html", context)


@requires(Permission.ACCESS_VIEW)
@require_safe
def acl_list(request: HttpRequest) -> HttpResponse:
    access = queries.access(users=False)
    resource, permission = lists.chosen(request, RESOURCE), lists.chosen(request, PERMISSION)
    rows = [
        acl
        for acl in access.acls or ()
        if resource in ("all", acl.resource.name) and permission in ("all", acl.permission.name)
    ]
    listing = lists.build(
        request,
        name="acls",
        columns=ACL_COLUMNS,
        rows=rows,
        row_template="access/_acl.html",
        search=lambda acl: f"{acl.principal} {acl.name} {acl.operation.name} {acl.host} {acl.resource.name}",
        sort="principal",
        filters=(RESOURCE, PERMISSION),
        placeholder=_("Filter by who, name or operation"),
        empty=lists.Empty(
            title=_("No ACLs"),
            hint=_("While there is none, everybody who can connect may do everything."),
            command="kafka-acls.sh --add --allow-principal User:… --operation Read --topic … --group …",
            sampled=False,
            known=access.acls is not None,
        ),
    )
    context = {"access": access, "oddities": _oddities(access)}
    return lists.respond(request, listing, "access/acls.html", context)


def _oddities(access: queries.Access) -> list[str]:
    return [] if access.acls is None else rules.oddities(access.acls, access.regime)


@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create_acl(request: HttpRequest) -> HttpResponse:
    initial = {"principal": request.GET.get("principal", "")}
    form = CreateAcl(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            actions.create_acls(actor=request.user, acls=[form.acl()])
        except kafka.ClusterError as error:
            form.add_error(None, kafka.reason(error))
        else:
            said = _("The ACL of %(who)s was created.") % {"who": form.cleaned_data["principal"]}
            return dialogs.done(request, reverse("console:acl-list"), said)
    access = queries.access()
    first = access.acls is not None and not access.acls and not access.regime.always_on
    context = {"form": form, "users": access.users, "first": first, "missing": access.missing}
    return dialogs.show(request, "access/create_acl.html", context, refused=bool(form.errors))


@requires(Permission.ACCESS_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def delete_acl(request: HttpRequest, token: str) -> HttpResponse:
    try:
        acl = rules.from_token(token)
    except rules.UnknownAcl as error:
        raise Http404(str(error)) from error
    form = dialogs.TypeName(acl.name, request.POST or None)
    if request.method == "POST" and form.is_valid():
        was_there = actions.delete_acl(actor=request.user, acl=acl)
        said = _("The ACL was deleted.") if was_there else _("The ACL was not there any more.")
        return dialogs.done(request, reverse("console:acl-list"), said)
    rest = [one for one in queries.access(users=False).acls or () if one != acl]
    context: dict[str, Any] = {"acl": acl, "form": form, "name": acl.name, "last": not rest}
    context["locks"] = bool(rest) and all(one.permission == types.Permission.DENY for one in rest)
    return dialogs.show(request, "access/delete_acl.html", context, refused=bool(form.errors))


@requires(Permission.ACCESS_VIEW)
@require_safe
def may(request: HttpRequest) -> HttpResponse:
    """`?principal=…&operation=…&resource=…&name=…&host=…`: the answer, with the rule that decided."""
    form = May(request.GET if "principal" in request.GET else None)
    context: dict[str, Any] = {"form": form}
    if form.is_bound and form.is_valid():
        data = form.cleaned_data
        access = queries.access(users=False)
        context |= {"access": access, "asked": data, "operation": types.Operation(data["operation"]).name}
        if access.acls is not None:
            context["answer"] = rules.may(
                access.acls,
                access.regime,
                principal=data["principal"],
                host="" if data["host"] == "*" else data["host"],
                operation=types.Operation(data["operation"]),
                resource=types.ResourceType(data["resource"]),
                name=data["name"],
            )
    part = "#answer" if request.htmx else ""  # type: ignore[attr-defined]  # set by django-htmx
    return render(request, f"access/may.html{part}", context)
