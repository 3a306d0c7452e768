"""Listening addresses: parsed from the environment and tried before any process starts.

A taken port is found here, in one place and before anything is running, so that the operator reads one line that names
the variable to change rather than a child's traceback in a restart loop.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULTS: Mapping[str, str] = {
    "SLUICE_BROKER_LISTENERS": "PLAINTEXT://127.0.0.1:9092",
    "SLUICE_MQTT_LISTENERS": "mqtt://127.0.0.1:1883,ws://127.0.0.1:8083/mqtt,http://127.0.0.1:8085",
    "SLUICE_HTTP": "127.0.0.1:8000",
}


class BadAddress(ValueError):
    """A listener variable that can't be understood."""


class AddressTaken(OSError):
    """Another program listens on an address that is ours to listen on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One `host:port` to listen on, with the variable it came from and the scheme (`mqtt`, `PLAINTEXT`, … or empty)."""

    variable: str
    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def mqtt(environ: Mapping[str, str]) -> Address | None:
    """The first listener for MQTT without TLS. Raises BadAddress."""
    found = parse("SLUICE_MQTT_LISTENERS", environ.get("SLUICE_MQTT_LISTENERS") or DEFAULTS["SLUICE_MQTT_LISTENERS"])
    return next((address for address in found if address.scheme in ("mqtt", "")), None)


def parse(variable: str, value: str) -> list[Address]:
    """The addresses of a comma-separated listener variable. Raises BadAddress, which names the variable."""
    addresses = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        scheme, separator, rest = part.partition("://")  # by hand: urlsplit knows no underscore in a scheme
        url = urlsplit(f"//{rest if separator else part}")
        try:
            port = url.port
        except ValueError as error:
            raise BadAddress(f"{variable}: {part!r} has no usable port ({error})") from error
        if not port:
            raise BadAddress(f"{variable}: {part!r} is not [scheme://]host:port")
        # `//:9092` and `//0.0.0.0:9092` both mean every interface
        addresses.append(
            Address(variable=variable, scheme=scheme if separator else "", host=url.hostname or "0.0.0.0", port=port)  # noqa: S104 - as written by the operator
        )
    return addresses


def configured(environ: Mapping[str, str], *, embedded: bool) -> Iterator[Address]:
    """Every address the product will listen on; the broker's only when it is embedded."""
    for variable, default in DEFAULTS.items():
        if variable != "SLUICE_BROKER_LISTENERS" or embedded:
            yield from parse(variable, environ.get(variable) or default)


def require_free(addresses: list[Address]) -> None:
    """Try each address by binding it for a moment. Raises AddressTaken for the first that can't be had."""
    for address in addresses:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, address.port))
                probe.listen(1)
            except OSError as error:
                raise AddressTaken(
                    f"{address} can't be listened on ({(error.strerror or str(error)).lower()}): "
                    f"stop the program that has it, or set {address.variable}"
                ) from error
