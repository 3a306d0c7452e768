"""The console in-process, on a database file of its own, against an embedded broker in a process of its own."""

import dataclasses
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from console import kafka
from console.accounts.models import User
from console.accounts.permissions import Role
from console.snapshot import Picture, held

ROOT = Path(__file__).resolve().parents[4]
TRIGGERS = {
    f"audit_entry_no_{verb.lower()}": f"BEFORE {verb} ON audit_entry "
    "BEGIN SELECT RAISE(ABORT, 'audit entries are append-only'); END"
    for verb in ("UPDATE", "DELETE")
}


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def console_settings(settings: Any, data_folder: Path) -> Iterator[None]:
    settings.SLUICE = dataclasses.replace(settings.SLUICE, data=data_folder, kafka="")
    settings.SECRET_KEY = "for tests alone"
    settings.ALLOWED_HOSTS = ["testserver"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.CELERY_TASK_ALWAYS_EAGER = False
    held._overlays.clear()
    held.replace_with(Picture())
    yield
    kafka.forget_connections()


@pytest.fixture
def database(transactional_db: None) -> Iterator[None]:
    """A database whose audit triggers stand aside only while it is emptied."""
    with connection.cursor() as cursor:
        for name, body in TRIGGERS.items():
            cursor.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {body}")
    yield
    with connection.cursor() as cursor:
        for name in TRIGGERS:
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


@pytest.fixture
def account(database: None) -> Callable[..., User]:
    def make(role: Role = Role.ADMIN, name: str = "") -> User:
        user = User(username=name or f"{role.value}-{uuid.uuid4().hex[:6]}", role=role)
        user.set_password("correct horse battery")
        user.save()
        return user

    return make


@pytest.fixture
def signed_in(account: Callable[..., User]) -> Callable[..., Client]:
    """A browser of somebody with this role."""

    def make(role: Role = Role.ADMIN) -> Client:
        client = Client()
        client.force_login(account(role), backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


@pytest.fixture(scope="session")
def broker(data_folder: Path) -> Iterator[str]:
    """The bootstrap address of an embedded broker, whose internal credential is in the data folder."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    environ |= {"SLUICE_DATA": str(data_folder), "SLUICE_BROKER_LISTENERS": "PLAINTEXT://127.0.0.1:0"}
    log = data_folder / "broker.out"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker"], cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"ready: PLAINTEXT://(\S+)", log.read_text(errors="replace"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the broker did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def unique() -> str:
    """A name nobody else uses."""
    return f"t-{uuid.uuid4().hex[:10]}"


def eventually(check: Callable[[], Any], within: float = 60.0) -> Any:
    """The first true answer of `check`; fails when there is none in time."""
    deadline = time.monotonic() + within
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r} after {within:g} s")
        time.sleep(0.05)
