"""The worker's Celery application: `celery -A console worker -B --pool threads`."""

import os
from pathlib import Path

from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("console")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks()


def make_folders() -> None:
    """The file transport's folders must exist before anything is sent or looked for."""
    options = settings.CELERY["broker_transport_options"]
    for key in ("data_folder_in", "processed_folder", "control_folder"):
        folder = options.get(key)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
