"""Make `broker/wire/messages/kafka.json` from a kafka-clients jar.

    python tests/tools/kafka_messages.py kafka-clients-4.4.0.jar

The jar is Maven Central's `org.apache.kafka:kafka-clients`. Names, types, versions, tags, defaults, nullability and
flexible versions are kept; the prose (descriptions, comments) and hints for Java (entity types, map keys, zero copy,
ignorable) are dropped. One message per line, so that an upgrade's difference can be read.
"""

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "broker" / "wire" / "messages" / "kafka.json"
MESSAGE_KEYS = (
    "apiKey",
    "type",
    "listeners",
    "validVersions",
    "flexibleVersions",
    "latestVersionUnstable",
)
FIELD_KEYS = (
    "name",
    "type",
    "versions",
    "nullableVersions",
    "taggedVersions",
    "tag",
    "default",
    "flexibleVersions",
)


def without_comments(text: str) -> str:
    """JSON text without its // comments; they never stand inside a string in these files."""
    return re.sub(r"(^|\s)//.*$", "", text, flags=re.MULTILINE)


def field(definition: dict[str, Any]) -> dict[str, Any]:
    kept = {key: definition[key] for key in FIELD_KEYS if key in definition}
    if "fields" in definition:
        kept["fields"] = [field(inner) for inner in definition["fields"]]
    return kept


def message(definition: dict[str, Any]) -> dict[str, Any]:
    kept = {key: definition[key] for key in MESSAGE_KEYS if definition.get(key, False) is not False}
    kept["fields"] = [field(inner) for inner in definition["fields"]]
    if common := definition.get("commonStructs"):
        kept["structs"] = [
            {"name": struct["name"], "fields": [field(inner) for inner in struct["fields"]]} for struct in common
        ]
    return kept


def main(jar: str) -> None:
    version = re.search(r"kafka-clients-(.+)\.jar$", jar)
    if version is None:
        sys.exit("expected the path of a kafka-clients-<version>.jar")
    messages = {}
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(archive.namelist()):
            if name.startswith("common/message/") and name.endswith(".json"):
                definition = json.loads(without_comments(archive.read(name).decode()))
                if definition["validVersions"] != "none":
                    messages[definition["name"]] = message(definition)
    lines = (f"{json.dumps(name)}:{json.dumps(body, separators=(',', ':'))}" for name, body in messages.items())
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(
        f'{{"kafka":{json.dumps(version[1])},"messages":{{\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
