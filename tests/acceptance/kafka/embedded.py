"""The embedded broker as a process of its own for the tests: free loopback ports, a temporary data folder.

    python -m tests.acceptance.kafka.embedded [--port 0]

Its listeners are those of the Apache Kafka beside it: PLAINTEXT, where everybody is User:ANONYMOUS and a super-user;
SASL_PLAINTEXT, where ACLs decide and User:admin is the super-user; SSL, which demands a client's certificate; SASL_SSL.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from broker.client import Admin, Settings
from broker.client.administration.types import Scram
from tests.acceptance.kafka.apache import ADMIN
from tests.integration.broker.issuers import AUDIENCE, ISSUER, Keys, TokenIssuer
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[3]


class EmbeddedBroker:
    """One running broker; `kill` is kill -9, and `start` serves the same data folder on the same ports again."""

    name = "embedded"

    def __init__(self, *, port: int = 0, environ: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="embedded-broker-"))
        plain, self.sasl_port, self.ssl_port, self.sasl_ssl_port = free_ports(4)
        self.plain_port = port or plain
        self.keys = Keys(self.folder)
        self.tokens = TokenIssuer(self.folder / "jwks.json")
        self.log = self.folder / "broker.log"
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.plain_port}"

    @property
    def sasl_bootstrap(self) -> str:
        return f"127.0.0.1:{self.sasl_port}"

    @property
    def addresses(self) -> dict[str, str]:
        """host:port by security protocol."""
        ports = {
            "PLAINTEXT": self.plain_port,
            "SSL": self.ssl_port,
            "SASL_PLAINTEXT": self.sasl_port,
            "SASL_SSL": self.sasl_ssl_port,
        }
        return {name: f"127.0.0.1:{port}" for name, port in ports.items()}

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self, timeout: float = 120.0) -> "EmbeddedBroker":
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        environ |= {
            "SLUICE_DATA": str(self.folder / "data"),
            "SLUICE_BROKER_LISTENERS": ",".join(f"{name}://{address}" for name, address in self.addresses.items()),
            "SLUICE_BROKER_MECHANISMS": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "SLUICE_BROKER_JWKS": str(self.tokens.path),
            "SLUICE_BROKER_OAUTH_ISSUER": ISSUER,
            "SLUICE_BROKER_OAUTH_AUDIENCE": AUDIENCE,
            "SLUICE_TLS_CERTIFICATE": str(self.keys.server[0]),
            "SLUICE_TLS_KEY": str(self.keys.server[1]),
            "SLUICE_TLS_CLIENT_CA": str(self.keys.ca),
            "SLUICE_BROKER_SUPER_USERS": f"User:ANONYMOUS,User:{ADMIN[0]}",
            "SLUICE_BROKER_ACLS": "on",
            "PYTHONUNBUFFERED": "1",
        }
        first = not (self.folder / "data").exists()
        (self.folder / "data").mkdir(exist_ok=True)
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "broker"],
                cwd=ROOT,
                env=environ | self._environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + timeout
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text("utf-8", "replace")[-3000:]
                self.stop(keep=True)
                raise AssertionError(f"the broker did not start: {tail}")
        if first:
            with Admin(Settings(bootstrap=self.bootstrap)) as admin:
                for mechanism in Scram:
                    admin.put_user(*ADMIN, mechanism, 4096)
        return self

    def _serves(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.plain_port), 0.2):
            return True
        time.sleep(0.02)
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def stop(self, *, keep: bool = False) -> None:
        """End it in order; `keep` leaves the data for another `start`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(60)
            self._process = None
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=0, help="of the PLAINTEXT listener; 0 = a free one")
    broker = EmbeddedBroker(port=options.parse_args().port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        broker.start()
        print(broker.bootstrap, flush=True)
        print(f"SASL: {broker.sasl_bootstrap} as {ADMIN[0]} / {ADMIN[1]}; log {broker.log}", flush=True)
        while broker._process is not None and broker._process.poll() is None:
            time.sleep(0.5)
        return 1
    finally:
        broker.stop()


if __name__ == "__main__":
    sys.exit(main())
