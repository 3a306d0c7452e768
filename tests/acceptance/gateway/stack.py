"""Broker and gateway as processes of their own, to be killed and started again on the same folder and ports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from broker.client import Admin, Settings
from broker.client.errors import ClientError
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


class Process:
    """One `python -m …` with its log in the folder."""

    def __init__(self, module: str, folder: Path, environ: dict[str, str], name: str = "") -> None:
        self.module = module
        self.log = folder / f"{name or module}.log"
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0

    def start(self, *, ready: bool = True, timeout: float = 120.0) -> None:
        self._began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", self.module], cwd=ROOT, env=self._environ, stdout=log, stderr=log
            )
        if ready:
            self.wait_ready(timeout)

    def wait_ready(self, timeout: float = 120.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self._process is not None
            if b"ready" in self.since_start():
                return
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"{self.module} did not get ready:\n{self.since_start().decode()}")

    def since_start(self) -> bytes:
        return self.log.read_bytes()[self._began :]

    def memory(self) -> int:
        """Resident, in bytes."""
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def check(self) -> None:
        """Raise if it was started and ended by itself."""
        status = None if self._process is None else self._process.poll()
        if status is not None:
            said = self.since_start().decode(errors="replace")[-2000:]
            raise AssertionError(f"{self.module} ended by itself, with status {status}:\n{said}")

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send it, to a process that runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.module} did not stop") from None
        self._process = None
        return status


class Neighbour:
    """Another gateway on the same broker."""

    def __init__(self, stack: Stack, name: str, **environ: str) -> None:
        self.port = free_port()
        more = {"SLUICE_MQTT_LISTENERS": f"mqtt://127.0.0.1:{self.port}", "SLUICE_GATEWAY_NAME": name}
        self.gateway = Process("gateway", stack.folder, stack.environ | more | environ, name)


class Stack:
    """A broker and a gateway on one data folder. The gateway's port stays the same over restarts."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self.port = free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        self.environ = inherited | {
            "SLUICE_DATA": str(folder / "data"),
            "SLUICE_BROKER_LISTENERS": f"PLAINTEXT://127.0.0.1:{free_port()}",
            "SLUICE_MQTT_LISTENERS": f"mqtt://127.0.0.1:{self.port}",
            "SLUICE_GATEWAY_NAME": "gateway-under-test",
            **environ,
        }
        self.broker = Process("broker", folder, self.environ)
        self.gateway = Process("gateway", folder, self.environ)

    def start(self) -> Stack:
        self.broker.start()
        self.gateway.start()
        return self

    def stop(self) -> None:
        self.gateway.kill()
        self.broker.kill()

    @property
    def cluster(self) -> Settings:
        """How the tests themselves reach the broker: as the internal super-user."""
        return Settings.from_env(self.environ)

    def admin(self) -> Admin:
        deadline = time.monotonic() + 60
        while True:
            admin = Admin(self.cluster)
            try:
                admin.cluster()
                return admin
            except ClientError:
                admin.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
