"""The console as a Django app: template tags, commands, and the translations it compiles at start."""

import contextlib

from django.apps import AppConfig
from django.conf import settings

from console import translations
from console.celery import app, make_folders


class ConsoleConfig(AppConfig):
    name = "console"

    def ready(self) -> None:
        app.set_default()  # for every thread of the process, not this one alone
        # A folder that can't be written to is not this place's to report: `up` says so in one line, and whoever needs
        # a file in it fails by name.
        with contextlib.suppress(OSError):
            settings.SLUICE.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            translations.compile_into(settings.SLUICE.data / "locale")
            make_folders()
