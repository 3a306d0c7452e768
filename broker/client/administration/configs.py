"""The admin's calls for configs."""

from typing import Any

from broker.client.administration.link import Link


class Changes:
    def __init__(self, **_: Any) -> None: ...


async def alter(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def describe(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
