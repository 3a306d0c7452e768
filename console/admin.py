"""Django admin over the same objects, for operations: to look at and search, and to act by the slices' own actions.

Nothing is added, edited or deleted here past those actions: every change keeps its permission, its record for the
gateways and its audit entry. Administrators alone are staff.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.models import Group as PermissionGroup
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from console import jobs, kafka, outbox
from console.accounts import actions as accounts
from console.accounts.models import User
from console.audit.models import Entry
from console.bridges import actions as bridges
from console.bridges.models import Bridge
from console.deadletters.models import Letter
from console.devices import actions as devices
from console.devices.models import Ban, Device, Presence
from console.groups import actions as groups
from console.inventory.models import Group, Topic
from console.jobs.models import Job
from console.outbox.models import Pending
from console.policies.models import Policy
from console.routes import actions as routes
from console.routes.models import Route
from console.topics import actions as topics

admin.site.site_header = _("Sluice operations")
admin.site.site_title = _("Sluice operations")
admin.site.index_title = _("Objects")
admin.site.unregister(PermissionGroup)

REFUSALS = (
    accounts.OwnAccount,
    accounts.LastAdministrator,
    groups.InternalGroup,
    topics.InternalTopic,
    kafka.ClientError,
    kafka.SettingsError,
)


class ReadMostly(admin.ModelAdmin):  # type: ignore[type-arg]  # generic in the stubs alone
    """Shows everything, edits nothing."""

    list_per_page = 50
    show_full_result_count = False
    page_name = ""  # of the object's page in the console, by `page_key`
    page_key = "name"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(request.user.is_active and request.user.is_staff)

    @admin.display(description=_("In the console"))
    def in_console(self, row: Any) -> str:
        try:
            return format_html('<a href="{}">→</a>', reverse(self.page_name, args=[getattr(row, self.page_key)]))
        except NoReverseMatch:
            return ""

    def each(self, request: HttpRequest, rows: Iterable[Any], act: Callable[[Any], object]) -> None:
        """Acts on one after another and says how many it worked for, and why not for the others."""
        done = 0
        for row in rows:
            try:
                act(row)
            except REFUSALS as error:
                self.message_user(request, f"{row}: {error}", messages.ERROR)
            else:
                done += 1
        said = ngettext("Done for %(n)d object.", "Done for %(n)d objects.", done) % {"n": done}
        self.message_user(request, said, messages.SUCCESS if done else messages.WARNING)


@admin.register(Topic)
class TopicAdmin(ReadMostly):
    list_display = ("name", "partitions", "replication", "messages", "size", "lag", "cleanup", "in_console")
    list_filter = ("cleanup",)
    search_fields = ("name",)
    page_name = "console:topic"
    actions = ("purge",)

    @admin.action(description=_("Purge: delete every record"))
    def purge(self, request: HttpRequest, rows: QuerySet[Topic]) -> None:
        self.each(request, rows, lambda row: topics.purge(actor=request.user, name=row.name))


@admin.register(Group)
class GroupAdmin(ReadMostly):
    list_display = ("name", "kind", "state", "members", "lag", "in_console")
    list_filter = ("state", "kind")
    search_fields = ("name", "topics")
    page_name = "console:group"
    actions = ("remove",)

    @admin.action(description=_("Delete with its offsets"))
    def remove(self, request: HttpRequest, rows: QuerySet[Group]) -> None:
        self.each(request, rows, lambda row: groups.delete(actor=request.user, name=row.name))


@admin.register(Device)
class DeviceAdmin(ReadMostly):
    list_display = ("name", "client_id", "enabled", "created", "rotated", "in_console")
    list_filter = ("enabled", "policies")
    search_fields = ("name", "client_id", "labels", "note")
    exclude = ("credentials",)
    page_name = "console:device"
    actions = ("disable", "enable", "disconnect", "revoke")

    @admin.action(description=_("Disable"))
    def disable(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self.each(request, rows, lambda row: devices.enable(actor=request.user, device=row, enabled=False))

    @admin.action(description=_("Enable"))
    def enable(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self.each(request, rows, lambda row: devices.enable(actor=request.user, device=row, enabled=True))

    @admin.action(description=_("Disconnect"))
    def disconnect(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self.each(request, rows, lambda row: devices.kick_device(actor=request.user, device=row))

    @admin.action(description=_("Revoke password"))
    def revoke(self, request: HttpRequest, rows: QuerySet[Device]) -> None:
        self.each(request, rows, lambda row: devices.revoke(actor=request.user, device=row))


@admin.register(Presence)
class PresenceAdmin(ReadMostly):
    list_display = ("client_id", "online", "since", "principal", "address", "gateway", "protocol")
    list_filter = ("online", "protocol", "tls")
    search_fields = ("client_id", "principal", "address")
    actions = ("disconnect",)

    @admin.action(description=_("Disconnect"))
    def disconnect(self, request: HttpRequest, rows: QuerySet[Presence]) -> None:
        self.each(request, rows, lambda row: devices.kick(actor=request.user, client_id=row.client_id))


@admin.register(Ban)
class BanAdmin(ReadMostly):
    list_display = ("value", "kind", "until", "reason", "by", "created")
    list_filter = ("kind",)
    search_fields = ("value", "reason")
    actions = ("lift",)

    @admin.action(description=_("Lift"))
    def lift(self, request: HttpRequest, rows: QuerySet[Ban]) -> None:
        self.each(request, rows, lambda row: devices.lift(actor=request.user, ban=row))


@admin.register(Policy)
class PolicyAdmin(ReadMostly):
    list_display = ("name", "everyone", "changed", "note", "in_console")
    list_filter = ("everyone",)
    search_fields = ("name", "publish", "subscribe", "note")
    page_name = "console:policy"


@admin.register(Route)
class RouteAdmin(ReadMostly):
    list_display = ("name", "kind", "source", "target", "priority", "enabled", "in_console")
    list_filter = ("kind", "enabled")
    search_fields = ("name", "source", "target", "note")
    page_name = "console:route"
    actions = ("disable", "enable")

    @admin.action(description=_("Take out of force"))
    def disable(self, request: HttpRequest, rows: QuerySet[Route]) -> None:
        self.each(request, rows, lambda row: routes.enable(actor=request.user, route=row, enabled=False))

    @admin.action(description=_("Put in force"))
    def enable(self, request: HttpRequest, rows: QuerySet[Route]) -> None:
        self.each(request, rows, lambda row: routes.enable(actor=request.user, route=row, enabled=True))


@admin.register(Bridge)
class BridgeAdmin(ReadMostly):
    list_display = ("name", "address", "enabled", "in_console")
    list_filter = ("enabled",)
    search_fields = ("name", "address", "note")
    exclude = ("definition",)  # it holds the sealed password
    page_name = "console:bridge"
    actions = ("disable", "enable")

    @admin.action(description=_("Take out of force"))
    def disable(self, request: HttpRequest, rows: QuerySet[Bridge]) -> None:
        self.each(request, rows, lambda row: bridges.enable(actor=request.user, bridge=row, enabled=False))

    @admin.action(description=_("Put in force"))
    def enable(self, request: HttpRequest, rows: QuerySet[Bridge]) -> None:
        self.each(request, rows, lambda row: bridges.enable(actor=request.user, bridge=row, enabled=True))


@admin.register(Letter)
class LetterAdmin(ReadMostly):
    list_display = ("__str__", "state", "reason", "origin_topic", "group", "attempts", "resolved_by")
    list_filter = ("state", "convention")
    search_fields = ("topic", "key", "detail", "origin_topic", "group")
    page_name = "console:dlq"
    page_key = "topic"


@admin.register(Job)
class JobAdmin(ReadMostly):
    list_display = ("title", "kind", "state", "done", "failed", "total", "actor_name", "created", "in_console")
    list_filter = ("state", "kind")
    search_fields = ("title", "actor_name")
    page_name = "console:job"
    page_key = "pk"
    actions = ("cancel",)

    @admin.action(description=_("Cancel"))
    def cancel(self, request: HttpRequest, rows: QuerySet[Job]) -> None:
        self.each(request, rows, lambda row: jobs.cancel(actor=request.user, job=row))


@admin.register(Entry)
class EntryAdmin(ReadMostly):
    list_display = ("at", "actor", "action", "name", "outcome", "address", "in_console")
    list_filter = ("outcome", "kind")
    search_fields = ("actor", "action", "name")
    page_name = "console:audit-entry"
    page_key = "pk"


@admin.register(Pending)
class PendingAdmin(ReadMostly):
    list_display = ("topic", "key", "created", "attempts", "error")
    search_fields = ("topic", "key")
    exclude = ("value", "holder")
    actions = ("publish",)

    @admin.action(description=_("Publish what waits"))
    def publish(self, request: HttpRequest, rows: QuerySet[Pending]) -> None:
        went = outbox.drain()
        said = ngettext("%(n)d record was published.", "%(n)d records were published.", went) % {"n": went}
        self.message_user(request, said, messages.SUCCESS if went else messages.WARNING)


@admin.register(User)
class UserAdmin(ReadMostly):
    list_display = ("username", "role", "is_active", "last_login", "date_joined")
    list_filter = ("role", "is_active")
    search_fields = ("username", "email")
    fields = ("username", "email", "role", "is_active", "last_login", "date_joined", "theme", "clock", "language")
    actions = ("disable", "enable")

    @admin.action(description=_("Disable"))
    def disable(self, request: HttpRequest, rows: QuerySet[User]) -> None:
        self.each(request, rows, lambda row: accounts.enable(actor=request.user, account=row, enabled=False))

    @admin.action(description=_("Enable"))
    def enable(self, request: HttpRequest, rows: QuerySet[User]) -> None:
        self.each(request, rows, lambda row: accounts.enable(actor=request.user, account=row, enabled=True))
