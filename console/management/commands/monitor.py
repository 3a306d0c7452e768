"""`manage.py monitor`: samples the cluster, publishes the picture, keeps the history."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from console.monitor.run import run


class Command(BaseCommand):
    help = "Sample the cluster about once a second; publish the numbers and keep their history."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        run(stop)
