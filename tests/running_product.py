"""The whole product, started as a user starts it: `manage.py up` on free loopback ports, with its own data folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 240.0
PASSWORD = "correct horse battery staple"


class Product:
    """A running product. `kafka`, `mqtt_port`, `ws_port`, `door_port` (publishing by HTTP) and `http` (the console) are
    its addresses; `admin` signs in with `password`."""

    def __init__(self, data: Path, *, password: str | None = PASSWORD, **environment: str) -> None:
        broker, mqtt, ws, http, door = free_ports(5)
        self.data = data
        self.kafka = environment.get("SLUICE_KAFKA") or f"127.0.0.1:{broker}"
        self.mqtt_port, self.ws_port, self.door_port, self.http = mqtt, ws, door, f"127.0.0.1:{http}"
        self.password = password
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "DATABASE_URL"))},
            "SLUICE_DATA": str(data),
            "SLUICE_BROKER_LISTENERS": f"PLAINTEXT://127.0.0.1:{broker}",
            "SLUICE_MQTT_LISTENERS": f"mqtt://127.0.0.1:{mqtt},ws://127.0.0.1:{ws}/mqtt,http://127.0.0.1:{door}",
            "SLUICE_HTTP": self.http,
            **({"SLUICE_ADMIN_PASSWORD": password} if password else {}),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.output = data.parent / f"{data.name}.out"

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    def start(self) -> None:
        """Start and wait until /healthz answers 200."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"], cwd=ROOT, env=self.environ, stdout=output, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + READY_SECONDS
        while self.health()[0] != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not healthy: {self.health()[1]}\n{self.said()[-6000:]}")
            time.sleep(0.1)

    def health(self) -> tuple[int | None, str]:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return None, str(error)

    def said(self) -> str:
        """Everything printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def pid_of(self, name: str) -> int:
        """The process id of one of the product's processes."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                for process in json.loads((self.data / "processes.json").read_text())["processes"]:
                    if process["name"] == name and process["pid"] and Path(f"/proc/{process['pid']}").exists():
                        return int(process["pid"])
            time.sleep(0.05)
        raise AssertionError(f"{name} does not run\n{self.said()[-4000:]}")

    def kill(self, name: str) -> None:
        """kill -9 one of the product's processes."""
        os.kill(self.pid_of(name), signal.SIGKILL)

    def manage(self, *arguments: str, within: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a management command with the product's environment."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=within,
        )  # fmt: skip

    def generated_password(self) -> str:
        """The first administrator's generated password, from its file."""
        match = re.search(r"^password: (\S+)$", (self.data / "first-login.txt").read_text(), re.MULTILINE)
        assert match
        return match[1]

    def stop(self) -> int | None:
        """SIGTERM; returns the exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        return self.process.returncode


@contextlib.contextmanager
def running_product(*, password: str | None = PASSWORD, **environment: str) -> Iterator[Product]:
    """A started product in a new folder, stopped and removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    product = Product(folder / "data", password=password, **environment)
    try:
        product.start()
        yield product
    finally:
        try:
            product.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
