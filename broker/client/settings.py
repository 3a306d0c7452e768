"""Where the cluster behind the seam is and how to sign in to it.

`SLUICE_KAFKA` names somebody's cluster; without it the embedded broker is meant, and the credential that it
keeps in `$SLUICE_DATA/internal.json` is used. The file is read anew by every `from_env()`, so a broker that
moved to another port is found again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class SettingsError(Exception):
    """The environment doesn't say, or says wrongly, how to reach the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to reach one cluster. `embedded` is True for the broker that came with this installation."""

    bootstrap: str
    security: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_key_password: str = field(default="", repr=False)
    tls_verify_host: bool = True
    client_id: str = "sluice"
    embedded: bool = False

    def __post_init__(self) -> None:
        if not self.bootstrap:
            raise SettingsError("no bootstrap address")
        if self.security not in PROTOCOLS:
            raise SettingsError(f"SLUICE_KAFKA_SECURITY is {self.security!r}; it must be one of {', '.join(PROTOCOLS)}")
        if self.mechanism not in MECHANISMS:
            known = ", ".join(MECHANISMS[1:])
            raise SettingsError(f"SLUICE_KAFKA_SASL_MECHANISM is {self.mechanism!r}; it must be one of {known}")
        if self.sasl and not self.mechanism:
            raise SettingsError(f"{self.security} needs SLUICE_KAFKA_SASL_MECHANISM")

    @property
    def sasl(self) -> bool:
        return self.security.startswith("SASL_")

    @property
    def tls(self) -> bool:
        return self.security.endswith("SSL")

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The bootstrap list as (host, port) pairs."""
        pairs = []
        for item in self.bootstrap.split(","):
            host, _, port = item.strip().rpartition(":")
            if not host or not port.isdigit():
                raise SettingsError(f"{item.strip()!r} is not host:port")
            pairs.append((host.strip("[]"), int(port)))
        return tuple(pairs)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, client_id: str = "sluice") -> "Settings":
        """The settings that the environment gives; raises SettingsError."""
        env = os.environ if environ is None else environ
        bootstrap = env.get("SLUICE_KAFKA", "").strip()
        if not bootstrap:
            return cls._embedded(Path(env.get("SLUICE_DATA", "") or "./data"), client_id)
        return cls(
            bootstrap=bootstrap,
            security=env.get("SLUICE_KAFKA_SECURITY", "").strip().upper() or "PLAINTEXT",
            mechanism=env.get("SLUICE_KAFKA_SASL_MECHANISM", "").strip().upper(),
            username=env.get("SLUICE_KAFKA_USERNAME", ""),
            password=env.get("SLUICE_KAFKA_PASSWORD", ""),
            tls_ca=env.get("SLUICE_KAFKA_TLS_CA", ""),
            tls_certificate=env.get("SLUICE_KAFKA_TLS_CERTIFICATE", ""),
            tls_key=env.get("SLUICE_KAFKA_TLS_KEY", ""),
            tls_key_password=env.get("SLUICE_KAFKA_TLS_KEY_PASSWORD", ""),
            tls_verify_host=env.get("SLUICE_KAFKA_TLS_VERIFY_HOST", "1").strip() not in ("0", "false", "no"),
            client_id=client_id,
        )

    @classmethod
    def _embedded(cls, folder: Path, client_id: str) -> "Settings":
        path = folder / "internal.json"
        try:
            credential = json.loads(path.read_text("utf-8"))
            return cls(
                bootstrap=credential["bootstrap"],
                security="SASL_PLAINTEXT",
                mechanism=credential.get("mechanism", "SCRAM-SHA-256"),
                username=credential["username"],
                password=credential["password"],
                client_id=client_id,
                embedded=True,
            )
        except FileNotFoundError:
            message = f"SLUICE_KAFKA is not set and the embedded broker's credential {path} does not exist"
            raise SettingsError(message) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"the embedded broker's credential {path} can't be used: {error}") from error

    def librdkafka(self) -> dict[str, Any]:
        """The connection part of a librdkafka configuration."""
        config: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            "security.protocol": self.security,
            "socket.keepalive.enable": True,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 2000,
            "log.connection.close": False,
            "log_level": 2,  # nothing on stderr but what ends the process: troubles come by callback (see `troubles`)
        }
        if self.sasl:
            config |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password,
            }
        if self.tls:
            config["ssl.endpoint.identification.algorithm"] = "https" if self.tls_verify_host else "none"
            paths = {
                "ssl.ca.location": self.tls_ca,
                "ssl.certificate.location": self.tls_certificate,
                "ssl.key.location": self.tls_key,
                "ssl.key.password": self.tls_key_password,
            }
            config |= {name: value for name, value in paths.items() if value}
        return config
