"""What every page's frame needs: navigation, the cluster's state, and the person's preferences."""

import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import snapshot, storage
from console.accounts.permissions import Permission, holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of the rail. `prefix` is the part of a view's name that it stands for; `keys` its shortcut after g."""

    label: Any
    icon: str
    view: str
    prefix: str
    keys: str = ""
    count: str = ""  # the live field of `cluster` shown beside it
    permission: Permission = Permission.VIEW


NAVIGATION: tuple[tuple[Any, tuple[Item, ...]], ...] = (
    (
        "",
        (Item(label=_("Overview"), icon="layout-dashboard", view="console:overview", prefix="overview", keys="o"),),
    ),
    (
        _("Streaming"),
        (
            Item(
                label=_("Topics"), icon="layers", view="console:topic-list", prefix="topic-", keys="t", count="topics"
            ),
            Item(label=_("Groups"), icon="users", view="console:group-list", prefix="group-", keys="c", count="groups"),
            Item(label=_("Pending deliveries"), icon="clock", view="console:delay-list", prefix="delay-", keys="y"),
            Item(label=_("Dead letters"), icon="inbox", view="console:dlq-list", prefix="dlq-", keys="d", count="dlq"),
        ),
    ),
    (
        _("Gateway"),
        (
            Item(
                label=_("Devices"),
                icon="radio-tower",
                view="console:device-list",
                prefix="device-",
                keys="v",
                count="devices",
            ),
            Item(label=_("Routes"), icon="route", view="console:route-list", prefix="route-", keys="r"),
            Item(label=_("Bridges"), icon="arrow-left-right", view="console:bridge-list", prefix="bridge-", keys="b"),
            Item(label=_("Policies"), icon="shield-check", view="console:policy-list", prefix="policy-", keys="p"),
        ),
    ),
    (
        _("Security"),
        (
            Item(
                label=_("Users"),
                icon="key-round",
                view="console:user-list",
                prefix="user-",
                keys="u",
                permission=Permission.ACCESS_VIEW,
            ),
            Item(
                label=_("ACLs"),
                icon="lock",
                view="console:acl-list",
                prefix="acl-",
                keys="a",
                permission=Permission.ACCESS_VIEW,
            ),
            Item(
                label=_("Quotas"),
                icon="gauge",
                view="console:quota-list",
                prefix="quota-",
                keys="q",
                permission=Permission.ACCESS_VIEW,
            ),
        ),
    ),
    (
        _("Operations"),
        (
            Item(label=_("Jobs"), icon="list-checks", view="console:job-list", prefix="job-", keys="j"),
            Item(
                label=_("Audit"),
                icon="scroll-text",
                view="console:audit-list",
                prefix="audit-",
                keys="l",
                permission=Permission.AUDIT_VIEW,
            ),
            Item(
                label=_("Accounts"),
                icon="user",
                view="console:account-list",
                prefix="account-",
                keys="n",
                permission=Permission.ACCOUNT_MANAGE,
            ),
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
            links.append(
                Link(
                    item=item,
                    url=url,
                    current=name.startswith(item.prefix) or name == item.prefix.rstrip("-"),
                    value=value,
                )
            )
        if links:
            sections.append((title, links))
    return sections
