"""The admin's calls for probing."""

from typing import Any

from broker.client.administration.link import Link


async def probe(link: Link, *arguments: Any, **options: Any) -> Any:
    raise NotImplementedError
