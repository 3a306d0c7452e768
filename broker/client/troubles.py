"""What librdkafka tells of its troubles: a broker that is away, a credential that is refused.

On its own it writes them to stderr, from its threads, as often as it tries again. `Settings.librdkafka` silences that;
here each trouble is heard by the client that has it, and logged at a pace that does not hide what else is logged.
"""

import logging
import time
from collections.abc import Callable
from weakref import WeakMethod

from confluent_kafka import KafkaError

log = logging.getLogger("broker.client")

PACE_SECONDS = 30.0


class Pace:
    """Says each kind of trouble once in so many seconds, and then how often it came meanwhile. There are as many kinds
    as librdkafka has error codes."""

    def __init__(self, seconds: float = PACE_SECONDS) -> None:
        self._seconds = seconds
        self._told: dict[int, tuple[float, int]] = {}  # by code: when, and how often it came since

    def tell(self, code: int, text: str, now: float) -> None:
        told = self._told.get(code)
        if told is not None and now - told[0] < self._seconds:
            self._told[code] = told[0], told[1] + 1
            return
        self._told[code] = now, 0
        if told is None or not told[1]:
            log.warning("trouble with the cluster: %s", text)
        else:
            log.warning("trouble with the cluster: %s (and %d times like it before)", text, told[1])


_pace = Pace()  # one for the process: it may have many clients of one cluster, and each meets the same trouble


def hearing(heard: Callable[[KafkaError], None]) -> Callable[[KafkaError], None]:
    """An `error_cb` that logs and calls a client's method. It doesn't keep the client alive: the handle holds its
    callback, so with a bound method handle and client would hold each other, and the handle's threads and connections
    would go on until the garbage collector came by."""
    method = WeakMethod(heard)

    def hear(error: KafkaError) -> None:
        _pace.tell(error.code(), error.str(), time.monotonic())
        client = method()
        if client is not None:
            client(error)

    return hear
