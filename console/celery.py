"""The worker's Celery application: `celery -A console worker -B --pool threads`."""

import os
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import celeryd_init
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

app = Celery("console")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks()


@celeryd_init.connect
def make_folders(**_: Any) -> None:
    """The file transport's folders must exist before the worker looks into them."""
    for key in ("data_folder_in", "processed_folder", "control_folder"):
        folder = app.conf.broker_transport_options.get(key)
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
