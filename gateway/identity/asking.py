"""Topic plugins' answers for one connection: asked once per action and topic, remembered, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.ports import Identity, Message, Receipt, Session

REMEMBERED = 10_000
HELD = 1000

Ask = Callable[[str, str], Awaitable[bool]]


class TopicAnswers:
    """`get` gives True, False, or None while the plugins think; `known` settles when they have answered."""

    def __init__(self, ask: Ask) -> None:
        """`ask(action, topic)`; actions as in `PluginHost.may`."""
        self._ask = ask
        self._answers: dict[tuple[str, str], bool] = {}
        self._asked: dict[tuple[str, str], Receipt[bool]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, action: str, topic: str) -> bool | None:
        return self._answers.get((action, topic))

    def known(self, action: str, topic: str) -> Receipt[bool]:
        """The receipt of the answer; never fails."""
        key = (action, topic)
        receipt = self._asked.get(key)
        if receipt is None:
            receipt = self._asked[key] = Receipt()
            task = asyncio.get_running_loop().create_task(self._answer(key, receipt))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return receipt

    async def _answer(self, key: tuple[str, str], receipt: Receipt[bool]) -> None:
        answer = await self._ask(*key)
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        self._answers[key] = answer
        self._asked.pop(key, None)
        receipt.settle(answer)


class Gate:
    """Stands for its session in the fan-out and lets through what the plugins allow it to receive, in order."""

    __slots__ = ("_answers", "_denied", "_held", "_session", "client_id")

    def __init__(self, session: Session, answers: TopicAnswers, denied: Callable[[], None]) -> None:
        self.client_id = session.client_id
        self._session = session
        self._answers = answers
        self._denied = denied
        self._held: deque[tuple[Message, int, bool, tuple[int, ...]]] = deque()

    @property
    def state(self) -> Any:
        return self._session.state

    @property
    def identity(self) -> Identity:
        return self._session.identity

    @property
    def distance(self) -> int:
        return self._session.distance

    def deliver(self, message: Message, qos: int, retain: bool, identifiers: tuple[int, ...] = ()) -> bool:
        answer = None if self._held else self._answers.get("receive", message.topic)
        if answer is False:
            self._denied()
            return True
        if answer:
            return self._session.deliver(message, qos, retain, identifiers)
        if len(self._held) >= HELD:
            return False
        self._held.append((message, qos, retain, identifiers))
        if len(self._held) == 1:
            self._ask_for_first()
        return True

    def _ask_for_first(self) -> None:
        self._answers.known("receive", self._held[0][0].topic).waiters.append(self)

    def receipt_settled(self, _: Receipt[bool]) -> None:
        while self._held:
            message, qos, retain, identifiers = self._held[0]
            answer = self._answers.get("receive", message.topic)
            if answer is None:
                self._ask_for_first()
                return
            self._held.popleft()
            if answer:
                self._session.deliver(message, qos, retain, identifiers)
            else:
                self._denied()
