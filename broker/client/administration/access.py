"""The admin's calls for access."""

from typing import Any

from broker.client.administration.link import Link


async def acls(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def alter_quota(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def create(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def delete(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def delete_user(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def put_user(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def quotas(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def users(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
