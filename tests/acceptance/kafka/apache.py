"""A real Apache Kafka (KRaft, one node) for the tests: from Maven, on free loopback ports, in a temporary folder.

    python -m tests.acceptance.kafka.apache [--port 0] [--heap 256m]

prints the bootstrap address once it serves and runs until it is interrupted. Its listeners: PLAINTEXT, where everybody
is User:ANONYMOUS and a super-user; SASL_PLAINTEXT (PLAIN, SCRAM), where Kafka's StandardAuthorizer decides and
User:admin is the super-user; SSL, which demands a client's certificate; and SASL_SSL (OAUTHBEARER too).
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
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.acceptance.kafka import java
from tests.integration.broker.issuers import AUDIENCE, ISSUER, Keys, TokenIssuer
from tests.ports import free_ports

ADMIN = ("admin", "admin-secret")
LISTENER = "org.apache.kafka.common.security"

PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CONTROLLER://127.0.0.1:{controller},{listeners}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.plain.sasl.jaas.config={LISTENER}.plain.PlainLoginModule required \\
  user_{admin}="{password}";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={LISTENER}.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={LISTENER}.scram.ScramLoginModule required;
listener.name.sasl_ssl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config={LISTENER}.plain.PlainLoginModule required \\
  user_{admin}="{password}";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={LISTENER}.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={LISTENER}.oauthbearer.OAuthBearerLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class={LISTENER}.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file:{jwks}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.issuer={issuer}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.expected.audience={audience}
listener.name.sasl_ssl.oauthbearer.sasl.oauthbearer.clock.skew.seconds=0
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={keys.ca}
listener.name.ssl.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:{admin}
allow.everyone.if.no.acl.found=false
log.dirs={folder}/logs
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=2
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=2
group.initial.rebalance.delay.ms=100
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
auto.create.topics.enable=true
log.retention.check.interval.ms=1000
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=2000000
file.delete.delay.ms=1000
num.network.threads=2
num.io.threads=4
"""


class ApacheKafka:
    """One running node; `stop` ends it by its own process and removes its folder."""

    name = "apache"

    def __init__(
        self, *, port: int = 0, heap: str = "256m", log_level: str = "error", more: str = "", quick: bool = True
    ) -> None:
        """`more`: further lines of server.properties. `quick`: start fast rather than run fast."""
        self.folder = Path(tempfile.mkdtemp(prefix="apache-kafka-"))
        plain, self.sasl_port, controller, self.ssl_port, self.sasl_ssl_port = free_ports(5)
        self.plain_port = port or plain
        self.keys = Keys(self.folder)
        self.tokens = TokenIssuer(self.folder / "jwks.json")
        certificate, key = self.keys.server
        (self.folder / "server.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        self.log = self.folder / "kafka.log"
        properties = self.folder / "server.properties"
        admin, password = ADMIN
        properties.write_text(
            PROPERTIES.format(
                listeners=",".join(f"{name}://{address}" for name, address in self.addresses.items()),
                keys=self.keys,
                jwks=self.tokens.path,
                issuer=ISSUER,
                audience=AUDIENCE,
                controller=controller,
                folder=self.folder,
                admin=admin,
                password=password,
                LISTENER=LISTENER,
            )
            + more
        )
        level = f"-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"
        tuning = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"] if quick else ["-XX:+UseG1GC", "-server"]
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file:{self.tokens.path}"
        self._options = [f"-Xmx{heap}", *tuning, level, allowed, "-cp", java.classpath()]
        self._properties = properties
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Where anonymous clients are super-users."""
        return f"127.0.0.1:{self.plain_port}"

    @property
    def sasl_bootstrap(self) -> str:
        """Where credentials and ACLs are asked for."""
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

    def start(self, timeout: float = 240.0) -> "ApacheKafka":
        if not (self.folder / "logs").exists():
            # zeros first, so that no id begins with a dash, which the tool would take for an option
            cluster = urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()
            tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)]
            done = subprocess.run(
                ["java", *self._options, *tool], capture_output=True, text=True, timeout=300, check=False
            )
            if done.returncode:
                raise AssertionError(f"StorageTool: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        with open(self.log, "ab") as log:
            command = ["java", *self._options, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + timeout
        while not self._serves():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text("utf-8", "replace")[-3000:]
                self.stop()
                raise AssertionError(f"Apache Kafka did not start: {tail}")
        return self

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.plain_port), 0.2):
                pass
        except OSError:
            time.sleep(0.1)
            return False
        client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        with contextlib.suppress(Exception):
            return bool(client.list_topics(timeout=2).brokers)
        return False

    def kill(self) -> None:
        """As `kill -9`; the data folder stays and `start` serves it again."""
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
    options.add_argument("--heap", default="256m")
    options.add_argument("--log-level", default="error")
    given = options.parse_args()
    kafka = ApacheKafka(port=given.port, heap=given.heap, log_level=given.log_level)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        kafka.start()
        print(kafka.bootstrap, flush=True)
        print(f"SASL: {kafka.sasl_bootstrap} as {ADMIN[0]} / {ADMIN[1]}; pid {os.getpid()}", flush=True)
        while kafka._process is not None and kafka._process.poll() is None:
            time.sleep(0.5)
        return 1
    finally:
        kafka.stop()


if __name__ == "__main__":
    sys.exit(main())
