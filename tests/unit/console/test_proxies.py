"""Whose word is taken for the client's address."""

import ipaddress
from typing import Any

from console.proxies import TrustedProxies


async def nothing(*_: Any) -> None: ...


def seen(client: str, headers: dict[str, str], trusted: str = "10.0.0.0/8", kind: str = "http") -> Any:
    wrapper = TrustedProxies(nothing, (ipaddress.ip_network(trusted),))
    scope = {
        "type": kind,
        "client": (client, 5),
        "scheme": "http" if kind == "http" else "ws",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    return wrapper.seen_through(scope)


def test_a_stranger_says_nothing_about_itself() -> None:
    scope = seen("203.0.113.9", {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "host": "a"})
    assert scope["client"] == ("203.0.113.9", 5)
    assert scope["scheme"] == "http"
    assert scope["headers"] == [(b"host", b"a")]


def test_a_trusted_proxy_names_the_client_and_the_scheme() -> None:
    scope = seen("10.0.0.1", {"x-forwarded-for": "198.51.100.7", "x-forwarded-proto": "https"})
    assert scope["client"] == ("198.51.100.7", 0)
    assert scope["scheme"] == "https"
    assert seen("10.0.0.1", {"x-forwarded-proto": "https"}, kind="websocket")["scheme"] == "wss"


def test_what_a_client_wrote_in_front_is_not_believed() -> None:
    scope = seen("10.0.0.1", {"x-forwarded-for": "127.0.0.1, 198.51.100.7, 10.0.0.2"})
    assert scope["client"] == ("198.51.100.7", 0)
