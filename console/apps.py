"""The console as a Django app: template tags, commands, and the translations it compiles at start."""

from django.apps import AppConfig
from django.conf import settings

from console import translations


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        translations.compile_into(settings.SLUICE.data / "locale")
