"""What suites need of Kafka's `kafka-configs.sh`: setting and removing the quotas of a client.

    python -m tests.acceptance.suites.configs --bootstrap-server HOST:PORT --alter \\
        --entity-type clients --entity-name NAME --add-config consumer_byte_rate=1024
"""

import argparse
import os
import sys
from pathlib import Path

from broker.client import Admin, Settings
from broker.client.administration.types import QuotaEntity

ROOT = Path(__file__).resolve().parents[3]


def install(folder: Path) -> None:
    """Write it to bin/kafka-configs.sh there: `folder` is a KAFKA_HOME."""
    script = folder / "bin" / "kafka-configs.sh"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m {__name__} "$@"\n')
    os.chmod(script, 0o755)


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--bootstrap-server", required=True)
    options.add_argument("--alter", action="store_true", required=True)
    options.add_argument("--entity-type", choices=["clients"], required=True)
    options.add_argument("--entity-name", required=True)
    options.add_argument("--add-config", default="", help="name=value,…")
    options.add_argument("--delete-config", default="", help="name,…")
    given = options.parse_args()
    added = dict(each.split("=", 1) for each in given.add_config.split(",") if each)
    with Admin(Settings(bootstrap=given.bootstrap_server)) as admin:
        admin.alter_quota(
            QuotaEntity(client_id=given.entity_name),
            set={name: float(value) for name, value in added.items()},
            remove=[name for name in given.delete_config.split(",") if name],
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
