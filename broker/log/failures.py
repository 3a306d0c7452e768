"""The ways a log says no. Each docstring is the default message; the edge translates them to Kafka's codes.

Two families: `LogRefusal` is the peer's doing and leaves the log as it was; `StorageFailure` is the disk's (or
ours), and the store's `health()` tells of it as long as it lasts.
"""

from __future__ import annotations


class LogError(Exception):
    """The log can't do that."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class LogRefusal(LogError):
    """The request does not fit the log."""


class OffsetOutOfRange(LogRefusal):
    """The offset lies before the log's start or beyond its end. (OFFSET_OUT_OF_RANGE)"""


class OutOfOrderSequence(LogRefusal):
    """The producer's sequence has a gap. (OUT_OF_ORDER_SEQUENCE_NUMBER)"""


class DuplicateSequence(LogRefusal):
    """The batch was appended before, too long ago to tell its offset. (DUPLICATE_SEQUENCE_NUMBER)"""


class InvalidProducerEpoch(LogRefusal):
    """A newer incarnation of this producer has written. (INVALID_PRODUCER_EPOCH)"""


class InvalidTxnState(LogRefusal):
    """The producer's batch does not fit its transaction's state. (INVALID_TXN_STATE)"""


class UnknownProducer(LogRefusal):
    """The producer's state is not there. (UNKNOWN_PRODUCER_ID)"""


class InvalidTimestamp(LogRefusal):
    """A record's timestamp lies outside what the topic allows. (INVALID_TIMESTAMP)"""


class InvalidBatch(LogRefusal):
    """The batch is not fit for this topic: compaction needs keys. (INVALID_RECORD)"""


class TransactionCoordinatorFenced(LogRefusal):
    """A newer transaction coordinator has written a marker. (TRANSACTION_COORDINATOR_FENCED)"""


class UnknownPartition(LogRefusal):
    """There is no such partition in this store. (UNKNOWN_TOPIC_OR_PARTITION)"""


class PartitionExists(LogRefusal):
    """The partition is in the store already."""


class StorageFailure(LogError):
    """The storage failed. (KAFKA_STORAGE_ERROR)"""


class StorageFull(StorageFailure):
    """The disk is full or a size limit is reached: nothing was appended; space heals it. (KAFKA_STORAGE_ERROR)"""


class StorageUnwritable(StorageFailure):
    """A write failed: what was not yet durable was taken back. (KAFKA_STORAGE_ERROR)"""


class StorageUnreadable(StorageFailure):
    """A read failed. (KAFKA_STORAGE_ERROR)"""


class StorageFatal(StorageFailure):
    """An fsync failed: nothing is acknowledged any more until a restart. (KAFKA_STORAGE_ERROR)"""


class StoreClosed(StorageFailure):
    """The store was closed. (KAFKA_STORAGE_ERROR)"""


class CorruptLog(StorageFailure):
    """The bytes on disk are damaged here; what lies around can be read. (CORRUPT_MESSAGE)"""


class FolderInUse(StorageFailure):
    """Another process has this folder open."""


class UnknownFormat(StorageFailure):
    """The files were written by a newer version."""
