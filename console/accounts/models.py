"""People who sign in to the console, with their role and preferences."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _

from console.accounts.permissions import ROLE_LABELS, Role


class User(AbstractUser):
    class Theme(models.TextChoices):
        SYSTEM = "system", _("As the system")
        LIGHT = "light", _("Light")
        DARK = "dark", _("Dark")

    class Clock(models.TextChoices):
        LOCAL = "local", _("Local time")
        UTC = "utc", _("UTC")

    role = models.CharField(
        _("role"), max_length=16, default=Role.VIEWER, choices=[(r.value, ROLE_LABELS[r]) for r in Role]
    )
    theme = models.CharField(_("theme"), max_length=8, default=Theme.SYSTEM, choices=Theme.choices)
    clock = models.CharField(_("times"), max_length=8, default=Clock.LOCAL, choices=Clock.choices)
    language = models.CharField(_("language"), max_length=16, blank=True)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints: ClassVar = [
            models.CheckConstraint(condition=models.Q(role__in=[r.value for r in Role]), name="role_is_known")
        ]

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and self.is_superuser:  # made by createsuperuser: the role alone grants
            self.role = Role.ADMIN
        self.is_superuser = self.is_staff = self.role == Role.ADMIN
        super().save(*args, **kwargs)

    @property
    def initials(self) -> str:
        name = self.get_full_name() or self.username
        words = [word for word in name.replace(".", " ").replace("_", " ").replace("-", " ").split() if word]
        return ("".join(word[0] for word in words[:2]) or "?").upper()
