"""What every page's frame needs: navigation, the cluster's state, and the person's preferences."""

import time
from dataclasses import KW_ONLY, dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import snapshot, storage
from console.accounts.permissions import Permission, holds


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of the rail: `noun` begins the names of its views, `keys` is its shortcut after g, `count` the live
    field of `cluster` shown beside it."""

    label: Any
    icon: str
    noun: str
    keys: str
    _: KW_ONLY
    count: str = ""
    permission: Permission = Permission.VIEW

    @property
    def view(self) -> str:
        return "console:overview" if self.noun == "overview" else f"console:{self.noun}-list"

    def holds(self, view: str) -> bool:
        """Whether a view of that name is one of its pages."""
        return view == self.noun or view.startswith(f"{self.noun}-")


NAVIGATION: tuple[tuple[Any, tuple[Item, ...]], ...] = (
    ("", (Item(_("Overview"), "layout-dashboard", "overview", "o"),)),
    (
        _("Streaming"),
        (
            Item(_("Topics"), "layers", "topic", "t", count="topics"),
            Item(_("Groups"), "users", "group", "c", count="groups"),
            Item(_("Pending deliveries"), "clock", "delay", "y"),
            Item(_("Dead letters"), "inbox", "dlq", "d", count="dlq"),
        ),
    ),
    (
        _("Gateway"),
        (
            Item(_("Devices"), "radio-tower", "device", "v", count="devices"),
            Item(_("Routes"), "route", "route", "r"),
            Item(_("Bridges"), "arrow-left-right", "bridge", "b"),
            Item(_("Policies"), "shield-check", "policy", "p"),
        ),
    ),
    (
        _("Security"),
        (
            Item(_("Users"), "key-round", "user", "u", permission=Permission.ACCESS_VIEW),
            Item(_("ACLs"), "lock", "acl", "a", permission=Permission.ACCESS_VIEW),
            Item(_("Quotas"), "gauge", "quota", "q", permission=Permission.ACCESS_VIEW),
        ),
    ),
    (
        _("Operations"),
        (
            Item(_("Jobs"), "list-checks", "job", "j"),
            Item(_("Audit"), "scroll-text", "audit", "l", permission=Permission.AUDIT_VIEW),
            Item(_("Accounts"), "user", "account", "n", permission=Permission.ACCOUNT_MANAGE),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    item: Item
    url: str
    current: bool
    value: Any


def context(request: HttpRequest) -> dict[str, Any]:
    user: Any = getattr(request, "user", None)
    signed_in = bool(user and user.is_authenticated)
    picture = snapshot.current()
    return {
        "sluice_environment": settings.SLUICE.environment_label,
        "theme": user.theme if signed_in else request.COOKIES.get("sluice_theme", "system"),
        "zone": timezone.get_current_timezone_name(),
        "clock": user.clock if signed_in else "utc",
        "navigation": _navigation(request, picture) if signed_in else (),
        "picture": picture,
        "stale": snapshot.is_stale(picture, time.time()),
        "storage": storage.troubles(),
        "storage_shown": storage.shown(),
        "may": _May(user if signed_in else None),
    }


class _May:
    """`{% if may.topic_create %}`: hides what would be refused anyway. The views themselves refuse."""

    def __init__(self, user: Any) -> None:
        self._user = user

    def __getitem__(self, name: str) -> bool:
        return holds(self._user, Permission[name.upper()])


def _navigation(request: HttpRequest, picture: snapshot.Picture) -> list[tuple[Any, list[Link]]]:
    match = request.resolver_match
    name = match.url_name or "" if match else ""
    numbers = picture.live("cluster") or {}
    sections = []
    for title, items in NAVIGATION:
        links = []
        for item in items:
            if not holds(request.user, item.permission):  # type: ignore[arg-type]  # the middleware's user is ours
                continue
            try:
                url = reverse(item.view)
            except NoReverseMatch:
                continue
            value = numbers.get(item.count) if item.count else None
            links.append(Link(item=item, url=url, current=item.holds(name), value=value))
        if links:
            sections.append((title, links))
    return sections
