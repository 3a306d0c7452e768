"""The admin's calls for storage."""

from typing import Any

from broker.client.administration.link import Link


async def log_dirs(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
