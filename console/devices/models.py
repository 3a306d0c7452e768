"""Devices and bans, which gateways follow in `__sluice_devices` and `__sluice_bans`; and what gateways tell of clients.

A device row holds the hash of a generated secret, never the secret. `Presence` is written by the monitor alone, from
`__sluice_presence`.
"""

from datetime import timedelta
from typing import Any, ClassVar

from django.db import models
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console.devices.reasons import Explained, ending, explained
from console.policies.models import Policy
from gateway import contract
from gateway.why import Why

LATELY = timedelta(hours=1)
# of contract.DeviceLimits' fields, in the order they are asked for
LIMITS = (
    ("connections", _("Connections at a time")),
    ("sessions", _("Sessions kept for it")),
    ("messages_rate", _("Messages a second")),
    ("bytes_rate", _("Bytes a second")),
    ("packet_size", _("Largest packet, bytes")),
    ("in_flight", _("Messages in flight")),
    ("queue", _("Messages kept for it")),
    ("subscriptions", _("Subscriptions")),
)


class Presence(models.Model):
    """The newest that is known of one MQTT client. `principal` is the device's name, empty for an anonymous one."""

    client_id = models.CharField(max_length=512, unique=True)
    online = models.BooleanField(db_index=True)
    since = models.DateTimeField()
    principal = models.CharField(max_length=512, blank=True)
    gateway = models.CharField(max_length=200, blank=True)
    address = models.CharField(max_length=100, blank=True)
    protocol = models.PositiveSmallIntegerField(default=4)
    listener = models.CharField(max_length=200, blank=True)
    tls = models.BooleanField(default=False)
    keep_alive = models.PositiveIntegerField(default=0)
    clean_start = models.BooleanField(default=True)
    subscriptions = models.PositiveIntegerField(default=0)
    queued = models.PositiveIntegerField(default=0)
    queued_bytes = models.PositiveBigIntegerField(default=0)
    dropped = models.PositiveBigIntegerField(default=0)
    expired = models.PositiveBigIntegerField(default=0)
    missing = models.PositiveBigIntegerField(default=0)
    reason = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = _("client")
        verbose_name_plural = _("clients")
        ordering: ClassVar = ["client_id"]
        indexes: ClassVar = [models.Index(fields=["principal", "online"])]

    def __str__(self) -> str:
        return self.client_id

    @property
    def ending(self) -> Any:
        """Why its connection ended."""
        return ending(self.reason)

    @property
    def protocol_name(self) -> str:
        return {3: "MQTT 3.1", 4: "MQTT 3.1.1", 5: "MQTT 5"}.get(self.protocol, f"MQTT {self.protocol}")


class Refusal(models.Model):
    """Connections that gateways refused or ended for the client's fault, alike ones counted in one row.

    `client_id` and `username` are what the client said of itself, which proves nothing. `why` is a word of
    `gateway.why`, empty where `kind` says it all, or a gateway was older than these words.
    """

    kind = models.CharField(max_length=60)
    why = models.CharField(max_length=60, blank=True)
    client_id = models.CharField(max_length=200, blank=True)
    username = models.CharField(max_length=200, blank=True)
    host = models.CharField(max_length=200, blank=True)
    detail = models.CharField(max_length=200, blank=True)
    count = models.PositiveBigIntegerField(default=0)
    last = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("refused connection")
        verbose_name_plural = _("refused connections")
        ordering: ClassVar = ["-last"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["kind", "why", "client_id", "username", "host"], name="one_row_of_alike_refusals"
            )
        ]
        indexes: ClassVar = [models.Index(fields=["username"]), models.Index(fields=["client_id"])]

    def __str__(self) -> str:
        return f"{self.client_id or self.username or self.host}: {self.detail or self.kind}"

    @property
    def explained(self) -> Explained:
        return explained(self.kind, self.why, self.detail)

    @property
    def by_http(self) -> bool:
        return self.kind.startswith("http-")


class Devices(models.QuerySet["Device"]):
    def with_presence(self) -> QuerySet[Any]:
        """Each with `online`, and `since`, `address` and `protocol` of its newest connection; `refused`: within the
        last hour."""
        lately = timezone.now() - LATELY
        mine = Presence.objects.filter(principal=OuterRef("name"))
        newest = mine.order_by("-online", "-since")
        return self.annotate(
            online=Exists(mine.filter(online=True)),
            refused=Exists(
                Refusal.objects.filter(username=OuterRef("name"), last__gte=lately).exclude(why=Why.TAKEN_OVER)
            ),
            since=Subquery(newest.values("since")[:1]),
            address=Subquery(newest.values("address")[:1]),
            protocol=Subquery(newest.values("protocol")[:1]),
        )


class Device(models.Model):
    name = models.CharField(_("name"), max_length=200, unique=True)
    client_id = models.CharField(_("client id"), max_length=512, blank=True)
    subject = models.CharField(_("certificate subject"), max_length=512, blank=True)
    labels = models.JSONField(_("labels"), default=list, blank=True)
    policies = models.ManyToManyField(Policy, verbose_name=_("policies"), related_name="devices", blank=True)
    limits = models.JSONField(_("limits"), default=dict, blank=True)  # of contract.DeviceLimits' fields, as given
    enabled = models.BooleanField(_("enabled"), default=True)
    credentials = models.JSONField(default=list)  # of contract.Credential's fields
    note = models.CharField(_("note"), max_length=500, blank=True)
    created = models.DateTimeField(default=timezone.now)
    rotated = models.DateTimeField(null=True)

    objects = Devices.as_manager()

    class Meta:
        verbose_name = _("device")
        verbose_name_plural = _("devices")
        ordering: ClassVar = ["name"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["client_id"], condition=~models.Q(client_id=""), name="one_device_per_client_id"
            ),
            models.UniqueConstraint(fields=["subject"], condition=~models.Q(subject=""), name="one_device_per_subject"),
        ]

    def __str__(self) -> str:
        return self.name

    def record(self) -> contract.Device:
        """As gateways know it."""
        return contract.Device(
            name=self.name,
            credentials=tuple(contract.Credential(**each) for each in self.credentials),
            enabled=self.enabled,
            client_id=self.client_id,
            subject=self.subject,
            policies=tuple(self.policies.order_by("name").values_list("name", flat=True)),
            limits=contract.DeviceLimits(**self.limits),
        )

    @property
    def limits_shown(self) -> list[tuple[Any, float]]:
        """(what it is, how much), of the limits that are its own."""
        return [(label, self.limits[name]) for name, label in LIMITS if name in self.limits]

    @property
    def password_kind(self) -> str:
        """generated, chosen, or "" for none."""
        kinds = {each.get("kind") for each in self.credentials}
        return "chosen" if "argon2id" in kinds else "generated" if kinds else ""


class Ban(models.Model):
    class Kind(models.TextChoices):
        CLIENT = "client", _("Client id")
        USER = "user", _("User name")
        ADDRESS = "address", _("IP address")

    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    value = models.CharField(_("who"), max_length=512)
    until = models.DateTimeField(_("until"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    by = models.CharField(max_length=150)
    created = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("ban")
        verbose_name_plural = _("bans")
        ordering: ClassVar = ["-created"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["kind", "value"], name="one_ban_each")]

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def is_over(self) -> bool:
        return self.until is not None and self.until <= timezone.now()

    def record(self) -> contract.Ban:
        until = self.until.timestamp() if self.until else None
        return contract.Ban(kind=self.kind, value=self.value, until=until, reason=self.reason)
