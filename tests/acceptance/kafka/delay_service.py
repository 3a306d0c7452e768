"""The delay service as a process of its own for the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broker.client import ClientError, Settings
from broker.client.delays import Delays
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]


class DelayService:
    """One running service; `kill` is kill -9, and `start` goes on in the same folder."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.http = f"127.0.0.1:{free_port()}"
        self.folder = Path(tempfile.mkdtemp(prefix="delay-"))
        self.log = self.folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> DelayService:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        environ |= {"SLUICE_KAFKA": self.bootstrap, "SLUICE_DATA": str(self.folder), "SLUICE_DELAY_PARTITIONS": "2"}
        environ["SLUICE_DELAY_HTTP"] = self.http
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "broker.delay"], cwd=ROOT, env=environ, stdout=log, stderr=log
            )
        return self

    def wait_ready(self, timeout: float = 120.0) -> DelayService:
        """Until every partition is in somebody's hands."""
        deadline = time.monotonic() + timeout
        with Delays(Settings(bootstrap=self.bootstrap), timeout=2.0) as delays:
            while True:
                try:
                    unknown = delays.counts().unknown
                    if not unknown:
                        return self
                except ClientError as error:
                    unknown = {-1: str(error)}
                assert self._process is not None and self._process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < deadline, f"{unknown}\n{self.log.read_text()[-3000:]}"
                time.sleep(0.05)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Until it ends by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(30)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
