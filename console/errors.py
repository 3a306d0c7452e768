"""Errors translated once, at the edge: what a refused permission or an unreachable cluster looks like to a browser."""

import logging
from collections.abc import Callable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from console import audit, kafka
from console.accounts.permissions import PermissionRefused

log = logging.getLogger("sluice.console")


class Translate:
    """Middleware. Also notes the address that changes of this request are recorded with."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = audit.address_in_force.set(request.META.get("REMOTE_ADDR", ""))
        try:
            return self._get_response(request)
        finally:
            audit.address_in_force.reset(token)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if isinstance(error, PermissionRefused):
            return self._say(request, _("Your role doesn't permit this."), 403)
        if isinstance(error, kafka.ClusterError):
            return self._say(request, _("The broker refused: %(reason)s") % {"reason": kafka.reason(error)}, 422)
        if isinstance(error, kafka.ClientError | kafka.SettingsError):
            log.warning("%s %s: %s", request.method, request.path, error)
            return self._say(request, _("The broker can't be reached: %(reason)s") % {"reason": error}, 503)
        return None

    def _say(self, request: HttpRequest, text: str, status: int) -> HttpResponse:
        if request.htmx:  # type: ignore[attr-defined]  # set by django-htmx
            messages.error(request, text)
            response = render(request, "parts/toasts.html", status=status)
            response["HX-Retarget"], response["HX-Reswap"] = "#toasts", "beforeend"
            return response
        return render(request, "error.html", {"title": text, "status": status}, status=status)


translate = Translate
