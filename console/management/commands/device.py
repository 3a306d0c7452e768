"""`manage.py device add NAME [--password-stdout]` and `device list`."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from console import audit, outbox
from console.devices import actions
from console.devices.forms import check_name
from console.devices.models import Device


class Command(BaseCommand):
    help = "Add MQTT devices and list them."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        add = verbs.add_parser("add", help="add a device and print its password, this once")
        add.add_argument("name")
        add.add_argument("--client-id", default="", help="the only MQTT client id it may use")
        add.add_argument("--password-stdout", action="store_true", help="print the password and nothing else")
        verbs.add_parser("list", help="the registered devices, one a line")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"] == "add":
            self._add(options["name"], options["client_id"], bare=options["password_stdout"])
        else:
            for device in Device.objects.with_presence():
                state = "disabled" if not device.enabled else "online" if device.online else "offline"
                self.stdout.write(
                    f"{device.name}\t{state}\t{device.client_id or '-'}\t{','.join(device.labels) or '-'}"
                )

    def _add(self, name: str, client_id: str, *, bare: bool) -> None:
        try:
            check_name(name)
            secret = actions.add(actor=audit.system("manage.py"), name=name, client_id=client_id)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except (actions.DeviceExists, actions.ClientIdTaken) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(secret if bare else f"{name} was added. Its password, shown this once: {secret}")
        if outbox.waiting():
            self.stderr.write("The broker can't be reached: gateways will know the device as soon as the worker can.")
