"""`manage.py up`, tried as a new user would: nothing there, everything there, taken, in use, stopped, killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running_product import ROOT, Product, running_product


def wait_until(condition: Callable[[], bool], what: str, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def program(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def test_a_devices_message_is_in_the_default_topic_with_key_and_headers(product: Product) -> None:
    subprocess.run(
        [program("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(product.mqtt_port), "-i", "thermo-1", "-q", "1",
         "-t", "plant/7/temperature", "-m", "21.5"],
        check=True, timeout=120,
    )  # fmt: skip
    seen = subprocess.run(
        [program("kcat"), "-b", product.kafka, "-C", "-t", "mqtt.messages", "-o", "beginning", "-e", "-q",
         "-f", "%k|%s|%h\n"],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip
    key, value, headers = next(line for line in seen.splitlines() if line.startswith("thermo-1|")).split("|")
    assert (key, value) == ("thermo-1", "21.5")
    assert {"mqtt.topic=plant/7/temperature", "mqtt.client.id=thermo-1", "mqtt.qos=1"} <= set(headers.split(","))


def test_the_generated_password_is_said_once_and_kept_for_its_owner_alone(product: Product) -> None:
    file = product.data / "first-login.txt"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert product.said().count(product.generated_password()) == 1


def test_secrets_of_the_data_folder_are_for_its_owner_alone(product: Product) -> None:
    assert stat.S_IMODE(product.data.stat().st_mode) == 0o700
    assert stat.S_IMODE((product.data / "internal.json").stat().st_mode) == 0o600


def test_status_says_what_runs_and_that_it_is_healthy(product: Product) -> None:
    status = product.manage("status")
    assert status.returncode == 0, status.stderr
    for name in ("broker", "gateway", "bridge", "monitor", "worker", "web"):
        assert f"{name:<8} running as" in status.stdout
    assert "healthy" in status.stdout


def test_a_data_folder_in_use_is_one_line_and_exit_status_1(product: Product) -> None:
    refused = product.manage("up")
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert "in use" in line
    assert "SLUICE_DATA" in line
    assert product.health()[0] == 200


def test_a_taken_port_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    other = Product(tmp_path / "data")
    with socket.create_server(("127.0.0.1", other.mqtt_port)):
        refused = other.manage("up")
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert "SLUICE_MQTT_LISTENERS" in line


def test_a_data_folder_that_can_not_be_made_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = Product(tmp_path / "file" / "data").manage("up")
    assert refused.returncode == 1
    (line,) = refused.stderr.strip().splitlines()
    assert "SLUICE_DATA" in line


def test_status_of_a_product_that_does_not_run_is_exit_status_1(tmp_path: Path) -> None:
    status = Product(tmp_path / "data").manage("status")
    assert status.returncode == 1
    assert "not running" in status.stderr


def processes_of(folder: Path) -> set[int]:
    """Every process whose environment names this data folder."""
    mark = f"SLUICE_DATA={folder}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                    found.add(int(entry.name))
            except (OSError, ProcessLookupError):
                continue
    return found


def test_it_starts_again_stops_when_told_and_leaves_nothing_running() -> None:
    with running_product() as product:
        assert len(processes_of(product.data)) >= 6
        assert product.stop() == 0
        wait_until(lambda: processes_of(product.data) == set(), "processes stayed behind")
        product.start()
        assert product.health()[0] == 200


def test_killed_children_come_back_and_a_killed_supervisor_leaves_nothing_running() -> None:
    with running_product() as product:
        before = {name: product.pid_of(name) for name in ("gateway", "broker", "web", "worker", "monitor")}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)

        def all_new() -> bool:
            return all(product.pid_of(name) != pid for name, pid in before.items())

        wait_until(all_new, "the children did not all come back")
        wait_until(lambda: product.health()[0] == 200, f"not healthy again: {product.health()[1]}", within=120)
        assert product.process
        product.process.kill()
        product.process.wait()
        wait_until(lambda: processes_of(product.data) == set(), "processes stayed behind", within=120)
        product.start()


def test_manage_py_help_lists_the_products_commands() -> None:
    help_text = subprocess.run(
        [sys.executable, "manage.py", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    ).stdout
    for command in ("up", "status", "monitor", "simulate"):
        assert f"\n    {command}\n" in help_text
