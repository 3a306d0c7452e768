"""Dialogs: a form shown over the page, answered with itself (422) or with where to go next.

A dialog's template extends `parts/dialog.html`; its view is asked with GET for the form and with POST to do it.
"""

from collections.abc import Mapping
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render


def show(request: HttpRequest, template: str, context: Mapping[str, Any], *, refused: bool = False) -> HttpResponse:
    return render(request, template, dict(context), status=422 if refused else 200)


def done(request: HttpRequest, url: str, text: str = "") -> HttpResponse:
    """It is done: say so in a toast on the page at `url`."""
    if text:
        messages.success(request, text)
    if request.htmx:  # type: ignore[attr-defined]  # set by django-htmx
        response = HttpResponse(status=204)
        response["HX-Redirect"] = url
        return response
    return HttpResponseRedirect(url)
