"""Kafka's message definitions as data, read from `messages/`: APIs, versions, fields."""

from dataclasses import dataclass


class UnknownMessage(KeyError):
    """A message, struct or API key that the definitions don't have."""


class UnsupportedVersion(ValueError):
    """A version outside the range the definitions have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One request/response pair: `name` is "Fetch", its messages are `name + "Request"` and `name + "Response"`.

    min and max are the stable versions the definitions have; flexible_from is the first flexible version, or
    max + 1 when there is none. listeners: "broker", "controller".
    """

    key: int
    name: str
    min: int
    max: int
    flexible_from: int
    listeners: tuple[str, ...]


def api(key: int) -> Api:
    """The API of a key; raises UnknownMessage."""
    raise NotImplementedError


def apis() -> dict[int, Api]:
    """Every API by key."""
    raise NotImplementedError
