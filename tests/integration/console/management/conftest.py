"""A real broker for the console's tests, and people of each role signed in."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as product_settings
from django.db import connection, transaction
from django.test import Client

from console import kafka
from console.accounts.models import User
from console.accounts.permissions import Role

ROOT = Path(__file__).resolve().parents[4]
READY_SECONDS = 120.0


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The database is a file, as in the product: the jobs' threads and the views' share it."""
    connection.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


class Broker:
    """`python -m broker` on free loopback ports with its own data folder; `start` and `stop` as often as wanted."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.output = data.parent / "broker.out"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        listeners = "PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0"
        environ |= {"SLUICE_DATA": str(self.data), "SLUICE_BROKER_LISTENERS": listeners}
        said = self.output.stat().st_size if self.output.exists() else 0
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "broker"], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + READY_SECONDS
        while b"ready" not in self.output.read_bytes()[said:]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.output.read_text()[-4000:])
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    @property
    def address(self) -> str:
        """The public listener without sign-in."""
        return self._listener("PLAINTEXT")

    @property
    def sasl_address(self) -> str:
        """The public listener that asks for a user's name and password."""
        return self._listener("SASL_PLAINTEXT")

    def _listener(self, protocol: str) -> str:
        ready = self.output.read_text().rpartition("ready:")[2]  # the internal listener is its last
        found = re.search(rf"(?<!_){protocol}://(127\.0\.0\.1:\d+)", ready)
        assert found is not None
        return found.group(1)


@pytest.fixture(scope="session")
def running_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker") / "data")
    broker.data.mkdir()
    broker.start()
    yield broker
    kafka.forget_connections()
    broker.stop()


@pytest.fixture(autouse=True)
def plain_assets(settings: Any) -> None:
    """Pages are drawn without `collectstatic`."""
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}


def _pointed_at(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka.forget_connections()
    monkeypatch.setattr(product_settings, "SLUICE", dataclasses.replace(product_settings.SLUICE, data=data, kafka=""))
    monkeypatch.delenv("SLUICE_KAFKA", raising=False)


def _allow_broker_calls_outside_the_code_s_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test runs in a transaction of its own: what counts is whether the code opened another inside it."""
    depth = len(connection.savepoint_ids)

    def refuse() -> None:
        here = transaction.get_connection()
        if here.in_atomic_block and len(here.savepoint_ids) > depth:
            raise kafka.InTransaction("broker calls are made outside database transactions")

    monkeypatch.setattr(kafka, "_refuse_in_transaction", refuse)


@pytest.fixture
def broker(running_broker: Broker, db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """The broker that this test's console talks to; it is shared, so names are the test's own."""
    if running_broker.process is None:
        running_broker.start()
    _pointed_at(running_broker.data, monkeypatch)
    _allow_broker_calls_outside_the_code_s_transactions(monkeypatch)
    yield running_broker


@pytest.fixture
def no_broker(tmp_path: Path, db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A console whose broker was never started."""
    _pointed_at(tmp_path, monkeypatch)
    _allow_broker_calls_outside_the_code_s_transactions(monkeypatch)
    yield
    kafka.forget_connections()


def _person(role: Role) -> User:
    return User.objects.create_user(f"the-{role.value}", password="a password of some length", role=role)


@pytest.fixture
def viewer(db: None) -> User:
    return _person(Role.VIEWER)


@pytest.fixture
def operator(db: None) -> User:
    return _person(Role.OPERATOR)


@pytest.fixture
def admin(db: None) -> User:
    return _person(Role.ADMIN)


def _signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client


@pytest.fixture
def as_viewer(viewer: User) -> Client:
    return _signed_in(viewer)


@pytest.fixture
def as_operator(operator: User) -> Client:
    return _signed_in(operator)


@pytest.fixture
def as_admin(admin: User) -> Client:
    return _signed_in(admin)


@pytest.fixture
def newest(broker: Broker) -> Callable[[str], dict[bytes, bytes | None]]:
    """The newest value of each key of a topic, as a reader from its beginning sees it."""

    def read(topic: str) -> dict[bytes, bytes | None]:
        place = kafka.TopicPartition(topic, 0)
        end = kafka.admin().offsets([place], kafka.types.At.LATEST)[place].offset
        found: dict[bytes, bytes | None] = {}
        reader: Any = kafka.consumer()
        try:
            reader.assign({place: kafka.BEGINNING})
            position = 0
            deadline = time.monotonic() + 60
            while position < end and time.monotonic() < deadline:
                for record in reader.poll(1000, 0.2):
                    found[record.key or b""] = record.value
                    position = record.offset + 1
        finally:
            reader.close()
        return found

    return read
