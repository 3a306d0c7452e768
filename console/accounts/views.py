"""Signing in and out, and one's own preferences."""

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import login, logout, update_session_auth_hash
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from console.accounts import actions
from console.accounts.forms import PasswordForm, PreferencesForm, SignInForm
from console.accounts.models import User
from console.accounts.permissions import Permission, requires

THEME_COOKIE = "sluice_theme"


@sensitive_post_parameters()
@never_cache
@login_not_required
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("console:overview")
    form = SignInForm(request, data=request.POST or None)
    if request.method == "POST" and form.is_valid():
        user: Any = form.get_user()
        login(request, user)
        response: HttpResponse = HttpResponseRedirect(_next(request))
        _set_cookies(response, user)
        return response
    return render(request, "accounts/sign_in.html", {"form": form, "next": request.GET.get("next", "")})


def locked_out(request: HttpRequest, *_args: Any, **_kwargs: Any) -> HttpResponse:
    """Axes calls this when a name was tried too often from one address."""
    form = SignInForm(request)
    return render(request, "accounts/sign_in.html", {"form": form, "locked": True}, status=429)


@require_POST
@requires(Permission.SELF)
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return redirect("console:sign-in")


@requires(Permission.SELF)
@require_http_methods(["GET", "HEAD", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    """Theme, clock and language; a form field that is not sent stays as it was."""
    user = cast(User, request.user)
    if request.method != "POST":
        return render(
            request,
            "accounts/preferences.html",
            {"form": PreferencesForm(instance=user), "languages": settings.LANGUAGES},
        )
    current = {"theme": user.theme, "clock": user.clock, "language": user.language}
    form = PreferencesForm(data=current | request.POST.dict(), instance=user)
    if not form.is_valid():
        return HttpResponse(status=422)
    saved = form.save()
    response: HttpResponse
    if "quiet" in request.POST:
        response = HttpResponse(status=204)
    else:
        response = HttpResponseRedirect(_next(request, "console:preferences"))
    _set_cookies(response, saved)
    return response


@sensitive_post_parameters()
@requires(Permission.SELF)
@require_POST
def password(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    form = PasswordForm(user, data=request.POST)
    if not form.is_valid():
        context = {"form": PreferencesForm(instance=user), "password_form": form, "languages": settings.LANGUAGES}
        return render(request, "accounts/preferences.html", context, status=422)
    actions.change_own_password(actor=user, new=form.cleaned_data["new"])
    update_session_auth_hash(request, user)
    messages.success(request, _("Your password was changed."))
    return redirect("console:preferences")


@login_not_required
@require_POST
def language(request: HttpRequest) -> HttpResponse:
    """The language of the sign-in page, before anybody is known."""
    response = HttpResponseRedirect(_next(request, "console:sign-in"))
    chosen = request.POST.get("language", "")
    if translation.check_for_language(chosen) and chosen in dict(settings.LANGUAGES):
        response.set_cookie(settings.LANGUAGE_COOKIE_NAME, chosen, max_age=365 * 86400, samesite="Lax")
    return response


def _next(request: HttpRequest, fallback: str = "console:overview") -> str:
    target = request.POST.get("next") or request.GET.get("next") or ""
    hosts = {request.get_host()}
    if target and url_has_allowed_host_and_scheme(target, hosts, require_https=request.is_secure()):
        return target
    return redirect(fallback)["Location"]


def _set_cookies(response: HttpResponse, user: User) -> None:
    """Kept beside the account so that the sign-in page and the first paint look the same."""
    year = 365 * 86400
    response.set_cookie(THEME_COOKIE, user.theme, max_age=year, samesite="Lax", secure=settings.SLUICE.secure)
    if user.language:
        response.set_cookie(
            settings.LANGUAGE_COOKIE_NAME, user.language, max_age=year, samesite="Lax", secure=settings.SLUICE.secure
        )
