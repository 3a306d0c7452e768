"""The broker's settings: environment only, each with a default, one frozen dataclass.

Safe by rule: on a loopback address anonymous use is allowed; a listener on any other address must authenticate its
peers (SASL, or TLS with client certificates), or the broker refuses to start, unless SLUICE_INSECURE=1 says otherwise.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")


class BadSetting(ValueError):
    """A setting that can't be understood, or that would be unsafe. The message names the variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listening address. `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""

    name: str
    protocol: str
    host: str
    port: int
    internal: bool = False
    advertised_host: str | None = None
    advertised_port: int | None = None

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL_")

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificate files of the TLS listeners; `client_ca` set means clients must show a certificate it signed."""

    certificate: Path
    key: Path
    key_password: str | None = None
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuth:
    """How OAUTHBEARER tokens are checked: signatures against a JWKS file, issuer and audience when given."""

    jwks: Path
    issuer: str | None = None
    audience: str | None = None
    claim: str = "sub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one peer may cost before it is cut off. Bytes, seconds, counts."""

    frame: int = 104_857_600
    frame_before_authentication: int = 65_536
    authentication_seconds: float = 10.0
    idle_seconds: float = 600.0
    connections: int = 20_000
    connections_per_address: int = 10_000
    queued_requests: int = 64
    held_bytes: int = 16_777_216
    unsent_bytes: int = 67_108_864


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the broker is told from outside."""

    data: Path
    listeners: tuple[Listener, ...]
    super_users: frozenset[str] = frozenset()
    acls_always_on: bool = False
    insecure: bool = False
    tls: Tls | None = None
    oauth: OAuth | None = None
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN")
    auto_create_topics: bool = True
    default_partitions: int = 1
    node_id: int = 1
    flush_interval_ms: int | None = None
    """None: acknowledge after the fsync. A number: acknowledge at once; the fsync follows within that time (in fact as
    soon as the one before it is done)."""
    limits: Limits = field(default_factory=Limits)
    log_level: str = "INFO"

    @property
    def folder(self) -> Path:
        """Where the broker keeps its logs."""
        return self.data / "broker"


VARIABLES: tuple[tuple[str, str, str], ...] = (
    ("SLUICE_DATA", "./data", "data folder; the broker's logs lie in its subfolder `broker`"),
    (
        "SLUICE_BROKER_LISTENERS",
        "PLAINTEXT://127.0.0.1:9092",
        "comma-separated addresses; protocols PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL; port 0 takes a free one",
    ),
    (
        "SLUICE_BROKER_ADVERTISED",
        "",
        "addresses told to clients, in the same form and by protocol; empty: the address the client reached",
    ),
    ("SLUICE_BROKER_MECHANISMS", "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN", "SASL mechanisms; OAUTHBEARER needs a JWKS file"),
    ("SLUICE_BROKER_SUPER_USERS", "", "comma-separated principals ACLs don't bind, such as User:admin"),
    (
        "SLUICE_BROKER_ACLS",
        "auto",
        "auto: ACLs decide once there is one; on: they always decide, so that nothing is allowed without one",
    ),
    ("SLUICE_BROKER_AUTO_CREATE", "1", "0: topics are not created by being used"),
    ("SLUICE_BROKER_NODE_ID", "1", "the broker's number, as clients see it"),
    ("SLUICE_BROKER_PARTITIONS", "1", "partitions of topics created without a count"),
    ("SLUICE_BROKER_MAX_CONNECTIONS", "20000", "connections in all"),
    ("SLUICE_BROKER_MAX_CONNECTIONS_PER_ADDRESS", "10000", "connections from one address"),
    ("SLUICE_BROKER_MAX_REQUEST", "104857600", "largest request in bytes"),
    ("SLUICE_BROKER_JWKS", "", "file with the keys (JWKS) OAUTHBEARER tokens are signed with"),
    ("SLUICE_BROKER_OAUTH_ISSUER", "", "issuer OAUTHBEARER tokens must name"),
    ("SLUICE_BROKER_OAUTH_AUDIENCE", "", "audience OAUTHBEARER tokens must name"),
    ("SLUICE_BROKER_OAUTH_CLAIM", "sub", "claim that holds the user's name"),
    (
        "SLUICE_FLUSH",
        "ack",
        "ack: fsync before acknowledging; interval:<ms>: acknowledge first, fsync within that time",
    ),
    ("SLUICE_INSECURE", "", "1: allow listening beyond loopback without authentication"),
    ("SLUICE_TLS_CERTIFICATE", "", "PEM certificate chain of the TLS listeners; re-read when it changes"),
    ("SLUICE_TLS_KEY", "", "PEM private key"),
    ("SLUICE_TLS_KEY_PASSWORD", "", "password of the private key"),
    ("SLUICE_TLS_CLIENT_CA", "", "PEM authorities whose client certificates are demanded (SSL) or accepted"),
    ("SLUICE_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
)
"""Name, default and meaning of every environment variable the broker reads."""


def help_text() -> str:
    """What `python -m broker --help` prints."""
    lines = ["usage: python -m broker", "", "The embedded log broker. Settings come from the environment:", ""]
    for name, default, meaning in VARIABLES:
        lines.append(f"  {name}" + (f" (default: {default})" if default else ""))
        lines.append(f"      {meaning}")
    return "\n".join(lines)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_listeners(variable: str, text: str) -> tuple[Listener, ...]:
    """The addresses of a comma-separated list. Raises BadSetting."""
    listeners: list[Listener] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        # urlsplit knows no scheme with an underscore
        scheme, _, address = part.partition("://")
        url = urlsplit(f"//{address}")
        protocol = scheme.upper()
        if protocol not in PROTOCOLS:
            raise BadSetting(f"{variable}: {part!r} does not start with one of {', '.join(PROTOCOLS)}")
        try:
            port = url.port
        except ValueError as error:
            raise BadSetting(f"{variable}: {part!r} has no usable port ({error})") from error
        if port is None:
            raise BadSetting(f"{variable}: {part!r} is not {protocol}://host:port")
        same = sum(1 for listener in listeners if listener.protocol == protocol)
        name = protocol if not same else f"{protocol}-{same + 1}"
        listeners.append(Listener(name=name, protocol=protocol, host=url.hostname or "0.0.0.0", port=port))  # noqa: S104 — an empty host means every interface, as the operator wrote
    return tuple(listeners)


def from_environ(environ: Mapping[str, str], internal: Listener | None = None, superuser: str = "") -> Config:
    """The settings of this environment; `internal` is the product's own listener, `superuser` its principal."""
    read = {name: environ.get(name, "").strip() or default for name, default, _ in VARIABLES}
    listeners = parse_listeners("SLUICE_BROKER_LISTENERS", read["SLUICE_BROKER_LISTENERS"])
    listeners = _advertised(listeners, read["SLUICE_BROKER_ADVERTISED"])
    tls = _tls(read)
    oauth = _oauth(read)
    mechanisms = _mechanisms(read["SLUICE_BROKER_MECHANISMS"], oauth)
    config = Config(
        data=Path(read["SLUICE_DATA"]),
        listeners=(*listeners, internal) if internal else listeners,
        super_users=frozenset(_super_users(read["SLUICE_BROKER_SUPER_USERS"])) | ({superuser} if superuser else set()),
        acls_always_on=_one_of(read, "SLUICE_BROKER_ACLS", ("auto", "on")) == "on",
        insecure=_flag(read, "SLUICE_INSECURE"),
        tls=tls,
        oauth=oauth,
        mechanisms=mechanisms,
        auto_create_topics=_flag(read, "SLUICE_BROKER_AUTO_CREATE"),
        default_partitions=_number(read, "SLUICE_BROKER_PARTITIONS", 1, 10_000),
        node_id=_number(read, "SLUICE_BROKER_NODE_ID", 0, 2**31 - 1),
        flush_interval_ms=_flush(read["SLUICE_FLUSH"]),
        limits=Limits(
            frame=_number(read, "SLUICE_BROKER_MAX_REQUEST", 65_536, 2**31 - 1),
            connections=_number(read, "SLUICE_BROKER_MAX_CONNECTIONS", 1, 10_000_000),
            connections_per_address=_number(read, "SLUICE_BROKER_MAX_CONNECTIONS_PER_ADDRESS", 1, 10_000_000),
        ),
        log_level=_one_of(read, "SLUICE_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR")),
    )
    _require_safe(config)
    return config


def _require_safe(config: Config) -> None:
    for listener in config.listeners:
        if listener.tls and config.tls is None:
            raise BadSetting(f"SLUICE_BROKER_LISTENERS: {listener} needs SLUICE_TLS_CERTIFICATE and SLUICE_TLS_KEY")
        authenticates = listener.sasl or (listener.tls and config.tls is not None and config.tls.client_ca is not None)
        if not listener.loopback and not authenticates and not config.insecure:
            raise BadSetting(
                f"SLUICE_BROKER_LISTENERS: {listener} would let anybody in from outside this machine: use SASL_SSL, "
                "or set SLUICE_INSECURE=1 if that is meant"
            )


def _advertised(listeners: tuple[Listener, ...], text: str) -> tuple[Listener, ...]:
    told = {address.name: address for address in parse_listeners("SLUICE_BROKER_ADVERTISED", text)}
    unknown = told.keys() - {listener.name for listener in listeners}
    if unknown:
        raise BadSetting(f"SLUICE_BROKER_ADVERTISED: there is no listener {sorted(unknown)[0]}")
    return tuple(
        Listener(
            name=listener.name,
            protocol=listener.protocol,
            host=listener.host,
            port=listener.port,
            advertised_host=told[listener.name].host if listener.name in told else None,
            advertised_port=told[listener.name].port if listener.name in told else None,
        )
        for listener in listeners
    )


def _tls(read: Mapping[str, str]) -> Tls | None:
    certificate, key = read["SLUICE_TLS_CERTIFICATE"], read["SLUICE_TLS_KEY"]
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise BadSetting("SLUICE_TLS_CERTIFICATE and SLUICE_TLS_KEY go together: one of them is not set")
    client_ca = read["SLUICE_TLS_CLIENT_CA"]
    for variable in ("SLUICE_TLS_CERTIFICATE", "SLUICE_TLS_KEY", "SLUICE_TLS_CLIENT_CA"):
        if read[variable] and not Path(read[variable]).is_file():
            raise BadSetting(f"{variable}: there is no file {read[variable]}")
    return Tls(
        certificate=Path(certificate),
        key=Path(key),
        key_password=read["SLUICE_TLS_KEY_PASSWORD"] or None,
        client_ca=Path(client_ca) if client_ca else None,
    )


def _oauth(read: Mapping[str, str]) -> OAuth | None:
    if not read["SLUICE_BROKER_JWKS"]:
        return None
    path = Path(read["SLUICE_BROKER_JWKS"])
    if not path.is_file():
        raise BadSetting(f"SLUICE_BROKER_JWKS: there is no file {path}")
    return OAuth(
        jwks=path,
        issuer=read["SLUICE_BROKER_OAUTH_ISSUER"] or None,
        audience=read["SLUICE_BROKER_OAUTH_AUDIENCE"] or None,
        claim=read["SLUICE_BROKER_OAUTH_CLAIM"],
    )


def _mechanisms(text: str, oauth: OAuth | None) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    for mechanism in named:
        if mechanism not in MECHANISMS:
            raise BadSetting(f"SLUICE_BROKER_MECHANISMS: {mechanism!r} is not one of {', '.join(MECHANISMS)}")
    if "OAUTHBEARER" in named and oauth is None:
        raise BadSetting("SLUICE_BROKER_MECHANISMS: OAUTHBEARER needs SLUICE_BROKER_JWKS")
    if oauth is not None and "OAUTHBEARER" not in named:
        named = (*named, "OAUTHBEARER")
    return named


def _super_users(text: str) -> Iterable[str]:
    for part in (piece.strip() for piece in text.replace(";", ",").split(",")):
        if not part:
            continue
        if not part.startswith("User:"):
            raise BadSetting(f"SLUICE_BROKER_SUPER_USERS: {part!r} is not User:<name>")
        yield part


def _flush(text: str) -> int | None:
    if text == "ack":
        return None
    kind, _, number = text.partition(":")
    if kind != "interval" or not number.isdigit() or not 1 <= int(number) <= 60_000:
        raise BadSetting(f"SLUICE_FLUSH: {text!r} is neither ack nor interval:<1 to 60000 ms>")
    return int(number)


def _flag(read: Mapping[str, str], name: str) -> bool:
    text = read[name].lower()
    if text in ("", "0", "false", "no", "off"):
        return False
    if text in ("1", "true", "yes", "on"):
        return True
    raise BadSetting(f"{name}: {read[name]!r} is neither 1 nor 0")


def _number(read: Mapping[str, str], name: str, least: int, most: int) -> int:
    try:
        number = int(read[name])
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise BadSetting(f"{name}: {read[name]!r} is not a number from {least} to {most}")
    return number


def _one_of(read: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    for choice in choices:
        if read[name].lower() == choice.lower():
            return choice
    raise BadSetting(f"{name}: {read[name]!r} is not one of {', '.join(choices)}")
