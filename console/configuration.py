"""The console's settings, read from the environment once and frozen.

Nothing here touches the disk except `secret_key`, which is called when the key is first needed.
"""

import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class InvalidConfiguration(ValueError):
    """An environment variable holds something Sluice can't use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    data: Path
    public_url: SplitResult
    http_host: str
    http_port: int
    trusted_proxies: tuple[Network, ...]
    environment_label: str
    database_url: str
    redis_url: str
    kafka: str  # empty: the embedded broker
    super_users: tuple[str, ...]  # the embedded broker's, as `User:name`
    acls_always_on: bool  # whether the embedded broker refuses what no ACL allows even while there is none
    debug: bool
    given_secret_key: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Configuration":
        host, port = _address(environ.get("SLUICE_HTTP", "127.0.0.1:8000"))
        public = urlsplit(environ.get("SLUICE_PUBLIC_URL") or f"http://{_bracketed(host)}:{port}")
        if public.scheme not in ("http", "https") or not public.hostname:
            raise InvalidConfiguration("SLUICE_PUBLIC_URL must look like https://sluice.example.org")
        return cls(
            data=Path(environ.get("SLUICE_DATA") or "data").absolute(),
            public_url=public,
            http_host=host,
            http_port=port,
            trusted_proxies=_networks(environ.get("SLUICE_TRUSTED_PROXIES", "")),
            environment_label=environ.get("SLUICE_ENV_LABEL", ""),
            database_url=environ.get("DATABASE_URL", ""),
            redis_url=environ.get("REDIS_URL", ""),
            kafka=environ.get("SLUICE_KAFKA", ""),
            super_users=_names(environ.get("SLUICE_BROKER_SUPER_USERS", "")),
            acls_always_on=environ.get("SLUICE_BROKER_ACLS", "") == "on",
            debug=environ.get("SLUICE_DEBUG", "") == "1",
            given_secret_key=environ.get("SECRET_KEY", ""),
        )

    @property
    def allowed_hosts(self) -> list[str]:
        """Host names requests may carry: the public one, and this machine's own loopback names."""
        hosts = {self.public_url.hostname or "", "localhost", "127.0.0.1", "[::1]"}
        if self.http_host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
            hosts.add(_bracketed(self.http_host))
        return sorted(hosts - {""})

    @property
    def origins(self) -> frozenset[str]:
        """Origins a WebSocket may be opened from, and forms posted from."""
        port = f":{self.public_url.port}" if self.public_url.port else ""
        origins = {f"{self.public_url.scheme}://{_bracketed(self.public_url.hostname or '')}{port}"}
        if self.public_url.scheme == "http":
            origins |= {f"http://{name}:{self.http_port}" for name in ("localhost", "127.0.0.1", "[::1]")}
        return frozenset(origins)

    @property
    def secure(self) -> bool:
        return self.public_url.scheme == "https"

    @property
    def console_database(self) -> Path:
        return self.data / "console.sqlite3"

    @property
    def history_database(self) -> Path:
        return self.data / "history.sqlite3"

    def secret_key(self) -> str:
        """The signing key: `SECRET_KEY`, else the one kept in the data folder (0600), made on first use."""
        if self.given_secret_key:
            return self.given_secret_key
        self.data.mkdir(parents=True, exist_ok=True)
        path = self.data / "secret_key"
        for _ in range(2):
            if path.exists():
                return path.read_text(encoding="ascii").strip()
            # Written aside and linked into place, so that of two processes starting together one key wins whole.
            draft = self.data / f".secret_key.{os.getpid()}.{secrets.token_hex(4)}"
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(50))
                file.flush()
                os.fsync(file.fileno())
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return path.read_text(encoding="ascii").strip()


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit():
        raise InvalidConfiguration("SLUICE_HTTP must look like 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace(";", ",").split(",") if part.strip())


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InvalidConfiguration(f"SLUICE_TRUSTED_PROXIES: {error}") from error
