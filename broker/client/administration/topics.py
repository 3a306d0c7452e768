"""The admin's calls for topics."""

from typing import Any

from broker.client.administration.link import Link


async def add_partitions(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def cluster(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def create(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def delete(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def topics(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
