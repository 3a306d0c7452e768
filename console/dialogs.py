"""Dialogs: a form shown over the page, answered with itself (422) or with where to go next.

A dialog's template extends `parts/dialog.html`; its view is asked with GET for the form and with POST to do it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from console import kafka

Errors = Mapping[type[Exception], str | None]
"""What an act may refuse with → the field that is wrong (None: the form as a whole)."""


class TypeName(forms.Form):
    """What can't be undone is confirmed by typing the name of what it is done to."""

    typed = forms.CharField(required=False, strip=True)

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = name

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed != self.name:
            raise ValidationError(_("That is not the name."))
        return typed


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


def submit(
    request: HttpRequest,
    template: str,
    form: Any,
    act: Callable[[], HttpResponse],
    *,
    errors: Errors | None = None,
    context: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """The form, or what `act` answers once a valid one was sent. A refusal is shown beside its field; one with
    `problems` (`field: text`) beside theirs, by the form's `show`."""
    if request.method == "POST" and form.is_valid():
        known = errors or {}
        try:
            return act()
        except tuple(known) as error:
            if hasattr(error, "problems"):
                form.show(error.problems)
            else:
                field = next(field for kind, field in known.items() if isinstance(error, kind))
                form.add_error(field, kafka.reason(error) if isinstance(error, kafka.ClusterError) else str(error))
    return show(request, template, {"form": form, **(context or {})}, refused=bool(form.errors))


def confirm(
    request: HttpRequest,
    template: str,
    name: str,
    act: Callable[[], HttpResponse],
    *,
    errors: tuple[type[Exception], ...] = (),
    context: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """As `submit`, once `name` was typed."""
    form = TypeName(name, request.POST or None)
    beside_it = dict.fromkeys(errors, "typed")
    return submit(request, template, form, act, errors=beside_it, context={"name": name, **(context or {})})
