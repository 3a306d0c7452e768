"""What can be done with receipts beside waiting on one: join, follow, answer, await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from gateway.ports import NotAcknowledged, Receipt, Refused

T = TypeVar("T")


def refused(refusal: Refused | NotAcknowledged) -> Receipt[Any]:
    """A receipt that has failed."""
    receipt: Receipt[Any] = Receipt()
    receipt.fail(refusal)
    return receipt


def gather(receipts: Sequence[Receipt[Any]], then: Callable[[], None]) -> None:
    """Call `then` when all have settled, however; at once when there is none to wait for."""
    if receipts:
        count = _Count(len(receipts), then)
        for receipt in receipts:
            receipt.waiters.append(count)
    else:
        then()


def follow(inner: Receipt[Any], outer: Receipt[Any]) -> None:
    """Let `outer` settle as `inner` does."""
    if inner.settled:
        _Follow(outer).receipt_settled(inner)
    else:
        inner.waiters.append(_Follow(outer))


def answer(receipt: Receipt[Any], value: T) -> Receipt[T]:
    """A receipt that settles with this value when another succeeds, and fails when it fails."""
    outer: Receipt[T] = Receipt()
    then = _Answer(outer, value)
    if receipt.settled:
        then.receipt_settled(receipt)
    else:
        receipt.waiters.append(then)
    return outer


def after(first: Receipt[Any], second: Receipt[T]) -> Receipt[T]:
    """A receipt that settles as `second` does, but not before `first` succeeded; fails when either fails."""
    outer: Receipt[T] = Receipt()
    earlier = [] if first.settled else [first]
    gather(earlier, lambda: follow(second, outer) if first.failure is None else outer.fail(first.failure))
    return outer


def again_if_failed(receipt: Receipt[Any], again: Callable[[], object]) -> None:
    """Call `again` if the receipt fails."""
    receipt.waiters.append(_Again(again))


async def wait(receipt: Receipt[T]) -> T | None:
    """Await a receipt; raises its failure."""
    await over(receipt)
    if receipt.failure is not None:
        raise receipt.failure
    return receipt.value


async def over(receipt: Receipt[Any]) -> None:
    """Await a receipt, however it settles."""
    if not receipt.settled:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        receipt.waiters.append(_Wake(future))
        await future


class _Count:
    __slots__ = ("_left", "_then")

    def __init__(self, left: int, then: Callable[[], None]) -> None:
        self._left = left
        self._then = then

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        self._left -= 1
        if not self._left:
            self._then()


class _Follow:
    __slots__ = ("_outer",)

    def __init__(self, outer: Receipt[Any]) -> None:
        self._outer = outer

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        if receipt.failure is not None:
            self._outer.fail(receipt.failure)
        elif receipt.doubtful:
            # waiters differ, and who waits on `outer` isn't known: in doubt if anybody is
            self._outer.fail(NotAcknowledged("the outcome is unknown"))
        else:
            self._outer.settle(receipt.value)


class _Answer:
    __slots__ = ("_receipt", "_value")

    def __init__(self, receipt: Receipt[Any], value: Any) -> None:
        self._receipt = receipt
        self._value = value

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        if receipt.failure is not None:
            self._receipt.fail(receipt.failure)
        else:
            self._receipt.settle(self._value)


class _Again:
    __slots__ = ("_again",)

    def __init__(self, again: Callable[[], object]) -> None:
        self._again = again

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        if receipt.failure is not None:
            self._again()


class _Wake:
    __slots__ = ("_future",)

    def __init__(self, future: asyncio.Future[None]) -> None:
        self._future = future

    def receipt_settled(self, receipt: Receipt[Any]) -> None:
        if not self._future.done():
            self._future.set_result(None)
