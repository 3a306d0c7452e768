"""The console as a Django app: template tags, commands, and the translations it compiles at start."""

from django.apps import AppConfig
from django.conf import settings

from console import translations
from console.celery import app, make_folders


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        translations.compile_into(settings.SLUICE.data / "locale")
        app.set_default()  # for every thread of the process, not this one alone
        make_folders()
