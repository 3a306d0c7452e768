"""The admin's calls for offsets."""

from typing import Any

from broker.client.administration.link import Link


async def delete_records(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError


async def find(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
