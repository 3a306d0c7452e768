"""The admin's calls for transactions."""

from typing import Any

from broker.client.administration.link import Link


async def abort(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def describe(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def listing(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def producers(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
