"""Puts the signed-in person's time zone in force for the request: UTC, or the zone their browser named."""

import zoneinfo
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation

ZONE_COOKIE = "sluice_zone"


def preferences(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def handle(request: HttpRequest) -> HttpResponse:
        user = request.user
        local = not user.is_authenticated or user.clock == user.Clock.LOCAL
        zone = _zone(request.COOKIES.get(ZONE_COOKIE, "")) if local else None
        if user.is_authenticated and user.language and user.language != request.LANGUAGE_CODE:
            translation.activate(user.language)
            request.LANGUAGE_CODE = translation.get_language() or "en"
        with timezone.override(zone):
            return get_response(request)

    return handle


def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None  # no such zone on this machine: UTC, which the page says
