"""Pages where administrators look after everybody's accounts."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from console import dialogs, lists
from console.accounts import actions
from console.accounts.forms import CreateAccount, RoleForm
from console.accounts.models import User
from console.accounts.permissions import Permission, requires

COLUMNS = (
    lists.Column(key="name", label=gettext_lazy("Name"), value=lambda u: u.username, order="username"),
    lists.Column(key="role", label=gettext_lazy("Role"), value=lambda u: u.role, order="role"),
    lists.Column(key="state", label=gettext_lazy("State"), value=lambda u: u.is_active, order="is_active", css="opt"),
    lists.Column(
        key="seen", label=gettext_lazy("Last sign-in"), value=lambda u: u.last_login, order="last_login", css="num opt"
    ),
    lists.Column(
        key="joined", label=gettext_lazy("Created"), value=lambda u: u.date_joined, order="date_joined", css="num opt2"
    ),
    lists.Column(key="do", label=gettext_lazy("Change"), sortable=False, quiet=True, csv=False, css="num"),
)


@requires(Permission.ACCOUNT_MANAGE)
@require_safe
def account_list(request: HttpRequest) -> HttpResponse:
    listing = lists.build(
        request,
        name="accounts",
        columns=COLUMNS,
        rows=User.objects.all(),
        row_template="accounts/_row.html",
        search=lambda rows, text: rows.filter(username__icontains=text) | rows.filter(email__icontains=text),
        sort="name",
        placeholder=_("Filter accounts by name"),
        empty=lists.Empty(title=_("No accounts"), sampled=False),
    )
    return lists.respond(request, listing, "accounts/list.html")


@never_cache
@requires(Permission.ACCOUNT_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    form = CreateAccount(request.POST or None)
    if request.method == "POST" and form.is_valid():
        name, password = form.cleaned_data["username"], actions.generated_password()
        try:
            actions.create(actor=request.user, username=name, role=form.chosen(), password=password)
        except actions.AccountExists as error:
            form.add_error("username", str(error))
        else:
            return _secret(request, _("Account %(name)s was created.") % {"name": name}, name, password)
    return dialogs.show(request, "accounts/create.html", {"form": form}, refused=bool(form.errors))


@requires(Permission.ACCOUNT_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def role(request: HttpRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(User, pk=pk)
    form = RoleForm(request.POST or None, initial={"role": account.role})
    if request.method == "POST" and form.is_valid():
        try:
            actions.change_role(actor=request.user, account=account, role=form.chosen())
        except (actions.OwnAccount, actions.LastAdministrator) as error:
            form.add_error("role", str(error))
        else:
            return _done(request, _("%(name)s has another role now.") % {"name": account.username})
    return dialogs.show(request, "accounts/role.html", {"form": form, "account": account}, refused=bool(form.errors))


@requires(Permission.ACCOUNT_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def enable(request: HttpRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(User, pk=pk)
    if request.method == "POST":
        actions.enable(actor=request.user, account=account, enabled=True)
        return _done(request, _("%(name)s can sign in again.") % {"name": account.username})
    return dialogs.show(request, "accounts/enable.html", {"account": account})


@requires(Permission.ACCOUNT_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def disable(request: HttpRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(User, pk=pk)
    form = dialogs.TypeName(account.username, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            actions.enable(actor=request.user, account=account, enabled=False)
        except (actions.OwnAccount, actions.LastAdministrator) as error:
            form.add_error("typed", str(error))
        else:
            return _done(request, _("%(name)s can't sign in any more.") % {"name": account.username})
    context = {"form": form, "name": account.username}
    return dialogs.show(request, "accounts/disable.html", context, refused=bool(form.errors))


@never_cache
@requires(Permission.ACCOUNT_MANAGE)
@require_http_methods(["GET", "HEAD", "POST"])
def reset(request: HttpRequest, pk: int) -> HttpResponse:
    account = get_object_or_404(User, pk=pk)
    if request.method == "POST":
        password = actions.reset_password(actor=request.user, account=account)
        said = _("%(name)s has a new password.") % {"name": account.username}
        return _secret(request, said, account.username, password)
    return dialogs.show(request, "accounts/reset.html", {"name": account.username})


def _done(request: HttpRequest, said: str) -> HttpResponse:
    return dialogs.done(request, reverse("console:account-list"), said)


def _secret(request: HttpRequest, said: str, name: str, secret: str) -> HttpResponse:
    context = {"said": said, "name": name, "secret": secret, "next": reverse("console:account-list")}
    return dialogs.show(request, "parts/secret.html", context)
