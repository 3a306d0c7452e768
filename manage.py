#!/usr/bin/env python3
"""Entry point of Sluice's commands: `manage.py up`, `status`, `monitor` and Django's own."""

import os
import sys

from django.core.management import execute_from_command_line


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
