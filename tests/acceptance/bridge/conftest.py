"""A mosquitto with TLS and a password, and a Sluice that bridges to it; each can be killed and started again."""

from __future__ import annotations

import datetime
import ipaddress
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.bridges import Bridge
from gateway.contract import BRIDGES
from gateway.sealing import load_key, seal
from tests.acceptance.gateway.people import Operator, operating, until
from tests.acceptance.gateway.stack import Process, Stack
from tests.ports import free_port

USER, PASSWORD = "sluice", "a secret of the upstream"


def make_certificate(folder: Path) -> None:
    """`ca.pem`, and `server.pem` with `server.key` for 127.0.0.1."""
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: Any, issuer: str, signer: Any, *, authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(signer, hashes.SHA256())

    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate("test authority", authority_key, "test authority", authority_key, authority=True)
    server = certificate("127.0.0.1", server_key, "test authority", authority_key, authority=False)
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


class Mosquitto:
    def __init__(self, folder: Path) -> None:
        self.program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(self.program).exists() or not shutil.which("mosquitto_passwd"):
            pytest.skip("mosquitto is not installed")
        self.folder = folder
        self.port = free_port()
        make_certificate(folder)
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), USER, PASSWORD], check=True, capture_output=True)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\n"
            f"cafile {folder}/ca.pem\ncertfile {folder}/server.pem\nkeyfile {folder}/server.key\n"
            f"allow_anonymous false\npassword_file {passwords}\n"
            f"persistence true\npersistence_location {folder}/\nuser root\n"
            "max_queued_messages 100000\nmax_inflight_messages 50\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )

        def accepts() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        assert until(accepts, 20), (self.folder / "mosquitto.log").read_text()

    def save(self) -> None:
        """Have it write what it holds to its file: it does so only now and then, and acknowledges from memory."""
        assert self._process is not None
        kept, before = self.folder / "mosquitto.db", time.time()
        self._process.send_signal(signal.SIGUSR1)
        assert until(lambda: kept.exists() and kept.stat().st_mtime >= before - 1, 20)
        time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def ca(self) -> str:
        return (self.folder / "ca.pem").read_text()


class Client:
    """A client of the upstream with a persistent session; `received` are payloads in order of arrival."""

    def __init__(self, upstream: Mosquitto, client_id: str, *filters: str) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.connected = threading.Event()
        self._filters = filters
        self._subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self.client.username_pw_set(USER, PASSWORD)
        self.client.tls_set(str(upstream.folder / "ca.pem"), tls_version=ssl.PROTOCOL_TLS_CLIENT)
        self.client.reconnect_delay_set(0.2, 1)  # type: ignore[arg-type]  # fractions work
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _, __, message: self.received.append((message.topic, message.payload))
        self.client.connect("127.0.0.1", upstream.port)
        self.client.loop_start()
        assert self.connected.wait(60)
        assert not filters or self._subscribed.wait(60)

    def _on_connect(self, *_: Any) -> None:
        self.connected.set()
        if self._filters:
            self.client.subscribe([(each, 1) for each in self._filters])

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        info.wait_for_publish(60)
        assert info.is_published()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Bridged:
    """Everything together. `second` is another bridge process, to be started by who wants it."""

    def __init__(self, folder: Path, **environ: str) -> None:
        (folder / "upstream").mkdir()
        self.upstream = Mosquitto(folder / "upstream")
        self.stack = Stack(folder, **environ)
        self.bridge = Process("gateway.bridge", folder, self.stack.environ)
        named = self.stack.environ | {"SLUICE_GATEWAY_NAME": "second"}
        self.second = Process("gateway.bridge", folder, named, "second-bridge")
        self.name = ""  # of this test's bridge; its topics begin with it too

    def start(self) -> None:
        self.upstream.start()
        if "SLUICE_KAFKA" in self.stack.environ:
            self.stack.gateway.start()
        else:
            self.stack.start()
        self.bridge.start()

    def definition(self, password: str = PASSWORD, **changes: Any) -> Bridge:
        fields: dict[str, Any] = {
            "name": self.name,
            "address": f"mqtts://127.0.0.1:{self.upstream.port}",
            "client_id": f"sluice-{self.name}",
            "username": USER,
            "ca": self.upstream.ca,
            "inbound": (f"{self.name}/commands/#",),
            "local_prefix": "upstream/",
            "outbound": (f"{self.name}/plant/#", "upstream/#"),
            "remote_prefix": "site1/",
            "since": time.time(),
        } | changes
        plain = Bridge(**fields)
        key = load_key(self.stack.folder / "data", {})
        return Bridge(**fields | {"password": seal(password, key, plain.context)})

    def set(self, operator: Operator, bridge: Bridge | None) -> None:
        operator.put(BRIDGES, self.name, bridge)

    def stop(self) -> None:
        self.bridge.kill()
        self.second.kill()
        self.stack.stop()
        self.upstream.kill()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridged]:
    made = Bridged(tmp_path_factory.mktemp("bridge"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def operator(together: Bridged) -> Iterator[Operator]:
    with operating(together.stack) as made:
        yield made


@pytest.fixture
def bridged(together: Bridged, operator: Operator) -> Iterator[Bridged]:
    """Everything running, and a name for a bridge of this test's own."""
    together.name = f"b{uuid.uuid4().hex[:6]}"
    yield together
    together.set(operator, None)
