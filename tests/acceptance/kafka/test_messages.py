"""Kafka's own message classes read what our codec writes, and write the same: every message in every version.

This is where the versions are compared that kio does not know (`tests/unit/broker/wire/test_codec_against_kio.py` names
them).
"""

import random
import subprocess

import pytest

from broker.wire import codec
from tests.acceptance.kafka import java
from tests.unit.broker.wire.arbitrary import message, names_and_versions

if not java.installed():
    pytest.skip("java and mvn are not installed", allow_module_level=True)

EACH = 15


def test_every_message_in_every_version_means_the_same_to_kafkas_own_classes() -> None:
    source = random.Random(20261121)
    asked = [
        (name, version, codec.encode(message(source, name, version), version))
        for name, version in names_and_versions()
        for _ in range(EACH)
    ]
    lines = "".join(f"{name} {version} {data.hex()}\n" for name, version, data in asked)
    done = subprocess.run(
        java.command("sluice.tests.Messages", heap="256m"),
        input=lines,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(asked) >= 640 * EACH
    differing = [
        f"{name} {version}: {data.hex()} became {answer}"
        for (name, version, data), answer in zip(asked, answers, strict=True)
        if data.hex() != answer
    ]
    assert differing == []
