"""The console as a Django app: template tags, commands, and the translations it compiles at start."""

from django.apps import AppConfig
from django.conf import settings

from console import translations


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        from console import celery

        translations.compile_into(settings.SLUICE.data / "locale")
        # every process that sends a wake-up needs the application: without it a task would look for an AMQP server
        celery.make_folders()
