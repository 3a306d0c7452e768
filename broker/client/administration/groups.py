"""The admin's calls for groups."""

from typing import Any

from broker.client.administration.link import Link


async def alter_share_offsets(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def commit(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def committed(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def delete(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def delete_share_offsets(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def describe(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def forget(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def listing(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def remove_members(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def share_offsets(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
