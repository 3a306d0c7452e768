"""The Celery application, of the worker (`celery -A console worker -B --pool threads`) and of those who wake it."""

import os
from pathlib import Path

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("console")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks()


def make_folders() -> None:
    """The file transport's folders must exist before anybody sends or looks."""
    for key in ("data_folder_in", "processed_folder", "control_folder"):
        folder = app.conf.broker_transport_options.get(key)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
