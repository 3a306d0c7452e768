"""The gateway's settings: environment only, each with a default, one frozen dataclass."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.logs import FORMATS
from gateway.server.listeners import BadListener, Listener, parse_listeners

DEFAULT_LISTENERS = "mqtt://127.0.0.1:1883,ws://127.0.0.1:8083/mqtt,http://127.0.0.1:8085"
TLS_LISTENER = "mqtts://127.0.0.1:8883"

VARIABLES: tuple[tuple[str, str, str], ...] = (
    ("SLUICE_DATA", "./data", "folder of the gateway's local state and of the internal credential"),
    (
        "SLUICE_MQTT_LISTENERS",
        DEFAULT_LISTENERS,
        "comma-separated mqtt://h:p, mqtts://h:p, ws://h:p/path, wss://h:p/path, http://h:p, https://h:p; "
        "with a certificate also " + TLS_LISTENER,
    ),
    ("SLUICE_TLS_CERTIFICATE", "", "certificate chain (PEM) of TLS listeners; read anew when it changes"),
    ("SLUICE_TLS_KEY", "", "its private key (PEM)"),
    ("SLUICE_TLS_CLIENT_CA", "", "CA (PEM) whose client certificates identify devices"),
    ("SLUICE_TRUSTED_PROXIES", "", "comma-separated networks that may send a PROXY protocol v2 header"),
    ("SLUICE_MQTT_ANONYMOUS", "", "1 or 0; default: allowed on loopback addresses, refused elsewhere"),
    ("SLUICE_MQTT_PACKET_SIZE", "1048576", "largest MQTT packet accepted, bytes"),
    ("SLUICE_MQTT_IN_FLIGHT", "1024", "unacknowledged QoS 1/2 messages a device may have sent (Receive Maximum)"),
    ("SLUICE_MQTT_QUEUE", "1000", "messages kept for a device that is away or slow"),
    ("SLUICE_MQTT_QUEUE_BYTES", "8388608", "bytes of payload kept for a device that is away or slow"),
    ("SLUICE_MQTT_RETAINED", "200000", "topics with a retained message; at more, new ones are not retained"),
    ("SLUICE_MQTT_RETAINED_BYTES", "268435456", "bytes of payload retained"),
    ("SLUICE_MQTT_OVERFLOW", "oldest", "what goes when that is exceeded: the oldest message, or the newest"),
    (
        "SLUICE_MQTT_EXPIRED",
        "discard",
        "discard or dead-letter: messages that expire before their device had them; routes may say otherwise",
    ),
    (
        "SLUICE_MQTT_CONNECTS_PER_ADDRESS",
        "5000",
        "connections a second from one address whose connections last; more wait, up to 5 s; 0: unlimited",
    ),
    ("SLUICE_MQTT_KEEP_ALIVE", "0", "longest keep alive granted, seconds; 0: as the device asks"),
    (
        "SLUICE_MQTT_SESSIONS",
        "20000",
        "sessions kept for one device, or for all anonymous ones together, connected or not; 0: unlimited",
    ),
    (
        "SLUICE_MQTT_SESSION_EXPIRY",
        "7776000",
        "longest session expiry granted, seconds (90 days); MQTT 3 sessions get it too; 0: as the device asks",
    ),
    ("SLUICE_MQTT_CONCEAL_DENIED", "", "1: SUBACK says 0x80 where it would say 0x87 (not authorised)"),
    (
        "SLUICE_MQTT_SERVER_REFERENCE",
        "",
        "host:port of another server; MQTT 5 clients are sent there when this gateway stops, and see the next",
    ),
    ("SLUICE_MQTT_MOVED", "", "1: every MQTT CONNECT is refused, with 'server moved' and that reference in MQTT 5"),
    (
        "SLUICE_MQTT_RESPONSE_INFORMATION",
        "",
        "what MQTT 5 clients that ask for response information are told; {client_id} is replaced",
    ),
    ("SLUICE_MQTT_PLUGINS", "", "JSON file that names amqtt plugins to load: {class path: configuration}"),
    ("SLUICE_MQTT_JWT", "", "JSON file: {key or key_file, algorithms, audience, issuer}; passwords may be JWTs then"),
    ("SLUICE_GATEWAY_NAME", "<host name>", "this gateway's name, unique among the gateways of one cluster"),
    (
        "SLUICE_GATEWAY_WORKERS",
        "1",
        "gateway processes that share this machine's listening ports, named <name>-1, <name>-2, …",
    ),
    ("SLUICE_KAFKA", "", "bootstrap addresses of a Kafka cluster; empty: the embedded broker"),
    ("SLUICE_KAFKA_SECURITY", "PLAINTEXT", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL (with SLUICE_KAFKA_SASL_…)"),
    ("SLUICE_INSECURE", "", "1: listen on other than loopback addresses without demanding authentication"),
    ("SLUICE_SYS_INTERVAL", "10", "seconds between the $SYS topics' updates; 0: there are none"),
    ("SLUICE_TRAFFIC_LEVELS", "2", "topic levels that the counters by prefix keep apart"),
    (
        "SLUICE_GATEWAY_METRICS",
        "",
        "host:port to answer GET /metrics on, for all workers together; empty: nowhere",
    ),
    ("SLUICE_SEALING_KEY", "", "64 hex digits: opens bridges' passwords; empty: the key in the data folder"),
    ("SLUICE_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
    ("SLUICE_LOG_FORMAT", "text", "text (key=value) or json; one line per event"),
)


class BadSettings(Exception):
    """The environment asks for something that can't be done, or is not safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one gateway process runs with. `anonymous` None: by listener (loopback only)."""

    data: Path
    listeners: tuple[Listener, ...]
    name: str
    workers: int = 1
    worker: int = 0  # which of several this process is; 0: the only one, or the one that keeps them
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    trusted_proxies: tuple[str, ...] = ()
    anonymous: bool | None = None
    insecure: bool = False
    packet_size: int = 1 << 20
    in_flight: int = 1024
    queue: int = 1000
    queue_bytes: int = 8 << 20
    retained: int = 200_000
    retained_bytes: int = 256 << 20
    overflow: str = "oldest"
    expired: str = "discard"
    connects_per_address: int = 5000
    keep_alive: int = 0
    sessions: int = 20_000
    session_expiry: int = 90 * 86_400
    conceal_denied: bool = False
    server_reference: str = ""
    moved: bool = False
    response_information: str = ""
    plugins: str = ""
    jwt: str = ""
    log_level: str = "INFO"
    log_format: str = "text"
    sys_interval: int = 10
    traffic_levels: int = 2
    metrics: tuple[str, int] | None = None
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def anonymous_on(self, listener: str) -> bool:
        """Whether a listener (as text) takes connections without any credential."""
        if self.anonymous is not None:
            return self.anonymous
        if self.insecure:
            return True
        return any(each.loopback for each in self.listeners if _same(each, listener))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Raises BadSettings."""
        env = os.environ if environ is None else environ
        certificate, key = env.get("SLUICE_TLS_CERTIFICATE", ""), env.get("SLUICE_TLS_KEY", "")
        default = DEFAULT_LISTENERS + ("," + TLS_LISTENER if certificate else "")
        text = env.get("SLUICE_MQTT_LISTENERS", "").strip() or default
        try:
            listeners = tuple(parse_listeners(text))
        except BadListener as error:
            raise BadSettings(str(error)) from error
        insecure = env.get("SLUICE_INSECURE", "") == "1"
        anonymous = {"1": True, "0": False}.get(env.get("SLUICE_MQTT_ANONYMOUS", "").strip())
        for each in listeners:
            if each.tls and not (certificate and key):
                raise BadSettings(f"{each} needs SLUICE_TLS_CERTIFICATE and SLUICE_TLS_KEY")
            if not each.loopback and anonymous and not insecure:
                message = f"{each} would let anybody in: unset SLUICE_MQTT_ANONYMOUS, or say SLUICE_INSECURE=1"
                raise BadSettings(message)
        reference = env.get("SLUICE_MQTT_SERVER_REFERENCE", "").strip()
        moved = env.get("SLUICE_MQTT_MOVED", "") == "1"
        if moved and not reference:
            raise BadSettings("SLUICE_MQTT_MOVED needs SLUICE_MQTT_SERVER_REFERENCE, which says where to")
        name = env.get("SLUICE_GATEWAY_NAME", "").strip() or socket.gethostname()
        workers = _number(env, "SLUICE_GATEWAY_WORKERS", 1, least=1)
        worker = _number(env, "SLUICE_GATEWAY_WORKER", 0, least=0)
        return cls(
            data=Path(env.get("SLUICE_DATA", "") or "./data"),
            listeners=listeners,
            name=name if not worker else f"{name}-{worker}",
            workers=workers,
            worker=worker,
            tls_certificate=certificate,
            tls_key=key,
            tls_client_ca=env.get("SLUICE_TLS_CLIENT_CA", ""),
            trusted_proxies=tuple(
                each.strip() for each in env.get("SLUICE_TRUSTED_PROXIES", "").split(",") if each.strip()
            ),
            anonymous=anonymous,
            insecure=insecure,
            packet_size=_number(env, "SLUICE_MQTT_PACKET_SIZE", 1 << 20, least=1024),
            in_flight=_number(env, "SLUICE_MQTT_IN_FLIGHT", 1024, least=1),
            queue=_number(env, "SLUICE_MQTT_QUEUE", 1000, least=1),
            queue_bytes=_number(env, "SLUICE_MQTT_QUEUE_BYTES", 8 << 20, least=1),
            retained=_number(env, "SLUICE_MQTT_RETAINED", 200_000, least=0),
            retained_bytes=_number(env, "SLUICE_MQTT_RETAINED_BYTES", 256 << 20, least=0),
            overflow=_one_of(env, "SLUICE_MQTT_OVERFLOW", ("oldest", "newest")),
            expired=_one_of(env, "SLUICE_MQTT_EXPIRED", ("discard", "dead-letter")),
            connects_per_address=_number(env, "SLUICE_MQTT_CONNECTS_PER_ADDRESS", 5000, least=0),
            keep_alive=_number(env, "SLUICE_MQTT_KEEP_ALIVE", 0, least=0),
            sessions=_number(env, "SLUICE_MQTT_SESSIONS", 20_000, least=0),
            session_expiry=_number(env, "SLUICE_MQTT_SESSION_EXPIRY", 90 * 86_400, least=0),
            conceal_denied=env.get("SLUICE_MQTT_CONCEAL_DENIED", "") == "1",
            server_reference=reference,
            moved=moved,
            response_information=env.get("SLUICE_MQTT_RESPONSE_INFORMATION", "").strip(),
            plugins=env.get("SLUICE_MQTT_PLUGINS", ""),
            jwt=env.get("SLUICE_MQTT_JWT", ""),
            log_level=env.get("SLUICE_LOG_LEVEL", "") or "INFO",
            log_format=_one_of(env, "SLUICE_LOG_FORMAT", FORMATS),
            sys_interval=_number(env, "SLUICE_SYS_INTERVAL", 10, least=0),
            traffic_levels=_number(env, "SLUICE_TRAFFIC_LEVELS", 2, least=1),
            metrics=_metrics(env, insecure, worker),
            environ=dict(env),
        )


def _number(env: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isdigit() or int(text) < least:
        raise BadSettings(f"{name} is {text!r}; it must be a number, at least {least}")
    return int(text)


def _one_of(env: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    text = env.get(name, "").strip() or choices[0]
    if text not in choices:
        raise BadSettings(f"{name} is {text!r}; it must be one of {', '.join(choices)}")
    return text


def _metrics(env: Mapping[str, str], insecure: bool, worker: int) -> tuple[str, int] | None:
    """Host and port. Whoever reaches it reads it, so it stays on this machine."""
    text = env.get("SLUICE_GATEWAY_METRICS", "").strip()
    if not text:
        return None
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise BadSettings(f"SLUICE_GATEWAY_METRICS is {text!r}; it must be host:port")
    if not Listener(scheme="mqtt", host=host, port=int(port)).loopback and not insecure:
        raise BadSettings(f"SLUICE_GATEWAY_METRICS: {host} is no loopback address; say SLUICE_INSECURE=1 if it must be")
    return ("127.0.0.1", 0) if worker else (host, int(port))  # a worker tells the process that keeps it


def _same(listener: Listener, text: str) -> bool:
    """Whether `text` names the listener, whose port 0 stands for the one it got."""
    if listener.port:
        return str(listener) == text
    before, _, after = str(listener).partition(":0")
    return text.startswith(before + ":") and text.endswith(after)


def describe() -> str:
    """The `--help` text."""
    lines = ["usage: python -m gateway", "", "The MQTT gateway. Configured by environment variables:", ""]
    for name, default, meaning in VARIABLES:
        lines.append(f"  {name} ({default or 'empty'})")
        lines.append(f"      {meaning}")
    return "\n".join(lines)
