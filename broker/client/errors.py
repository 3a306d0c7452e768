"""What can go wrong at the seam, as named exceptions.

Kafka's error codes are translated here, once. A `ClusterError` carries the code and Kafka's own name for it,
so that a caller that must tell two refusals apart needs no string comparison.
"""

from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException


class ClientError(Exception):
    """The cluster could not do what was asked of it."""


class Unreachable(ClientError):
    """No broker of the cluster answered."""


class TimedOut(ClientError):
    """The cluster did not answer within the deadline; whether it did what was asked is not known."""


class AuthenticationFailed(ClientError):
    """The cluster refused this user name and password, or this certificate."""


class UnsupportedByCluster(ClientError):
    """The cluster behind the seam has no such call, or not in a version that could say this."""


class ProtocolError(ClientError):
    """The cluster answered something that is not the Kafka protocol."""


class Fenced(ClientError):
    """Another producer with the same transactional id, or another member, has taken over."""


class QueueFull(ClientError):
    """The producer's queue is full; poll and try again."""


class ClusterError(ClientError):
    """The cluster refused, with one of Kafka's error codes."""

    codes: ClassVar[frozenset[int]] = frozenset()

    def __init__(self, code: int, name: str, message: str = "") -> None:
        super().__init__(f"{name}: {message}" if message else name)
        self.code = code
        self.name = name
        self.message = message

    @property
    def retriable(self) -> bool:
        return self.code in RETRIABLE


class UnknownTopic(ClusterError):
    """There is no such topic or partition, or this user may not see it."""

    codes = frozenset({3, 100})


class TopicExists(ClusterError):
    """A topic of this name is there already."""

    codes = frozenset({36})


class InvalidTopic(ClusterError):
    """The name is not one that a topic may have."""

    codes = frozenset({17})


class InvalidConfig(ClusterError):
    """A configuration name or value was refused."""

    codes = frozenset({40})


class InvalidRequest(ClusterError):
    """The cluster refused the request's content."""

    codes = frozenset({37, 38, 39, 42, 44})


class NotAuthorized(ClusterError):
    """This user may not do this."""

    codes = frozenset({29, 30, 31, 53, 65})


class UnknownGroup(ClusterError):
    """There is no group of this name."""

    codes = frozenset({69})


class GroupNotEmpty(ClusterError):
    """The group has members, or is subscribed to this topic."""

    codes = frozenset({68, 86})


class OffsetOutOfRange(ClusterError):
    """The log has no such offset."""

    codes = frozenset({1})


class RecordTooLarge(ClusterError):
    """The record is larger than the topic, or this client, permits."""

    codes = frozenset({10, 18})


class UnknownUser(ClusterError):
    """There is no such user, or no such credential of the user's."""

    codes = frozenset({91})


class CoordinatorMoved(ClusterError):
    """This broker is not, or not yet, the coordinator or leader; ask again."""

    codes = frozenset({5, 6, 14, 15, 16, 41})


class NotYet(ClusterError):
    """A transaction is in the way; ask again."""

    codes = frozenset({51, 88})


RETRIABLE = frozenset({3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 19, 20, 27, 41, 56, 60, 70, 71, 72, 74, 75, 78, 88, 100, 103})
_BY_CODE: dict[int, type[ClusterError]] = {code: kind for kind in ClusterError.__subclasses__() for code in kind.codes}
_FENCED = frozenset({47, 90, KafkaError._FENCED})
_AUTHENTICATION = frozenset({58, KafkaError._AUTHENTICATION})
_UNREACHABLE = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._SSL})
_TIMED_OUT = frozenset({KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE})
_UNSUPPORTED = frozenset({35, KafkaError._UNSUPPORTED_FEATURE})
_UNKNOWN_HERE = {KafkaError._UNKNOWN_TOPIC: 3, KafkaError._UNKNOWN_PARTITION: 3}


def from_code(code: int, message: str | None = None, name: str | None = None) -> ClientError:
    """The exception for one of Kafka's error codes (or librdkafka's negative ones)."""
    code = _UNKNOWN_HERE.get(code, code)
    text = message or ""
    if code in _UNSUPPORTED:
        return UnsupportedByCluster(text or "the cluster does not support this")
    if code in _FENCED:
        return Fenced(text or "taken over by another")
    if code in _AUTHENTICATION:
        return AuthenticationFailed(text or "the cluster refused the credential")
    if code in _UNREACHABLE:
        return Unreachable(text or "no broker answered")
    if code in _TIMED_OUT:
        return TimedOut(text or "no answer within the deadline")
    if code == KafkaError._QUEUE_FULL:
        return QueueFull("the producer's queue is full")
    label = name or name_of(code)
    return _BY_CODE.get(code, ClusterError)(code, label, text)


def name_of(code: int) -> str:
    """Kafka's name for an error code."""
    return str(KafkaError(code).name())


def translate(error: KafkaException | KafkaError) -> ClientError:
    """The exception for an error that confluent-kafka reported."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return ClientError(str(cause))
    return from_code(cause.code(), cause.str(), cause.name())
