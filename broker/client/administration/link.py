"""The connections behind the admin."""

from broker.client.settings import Settings


class Link:
    def __init__(self, settings: Settings, *, timeout: float) -> None:
        self.settings = settings
        self.timeout = timeout

    async def versions(self) -> dict[int, tuple[int, int]]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
