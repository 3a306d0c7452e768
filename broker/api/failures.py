"""Exceptions of the core translated to Kafka's error codes: once, here, at the edge."""

from __future__ import annotations

from broker.cluster.configs import InvalidAlteration, InvalidConfig
from broker.cluster.topic_names import InvalidTopicName
from broker.log import failures
from broker.server.quotas import MutationQuotaExceeded
from broker.wire import batch
from broker.wire.errors import ErrorCode

_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (failures.OffsetOutOfRange, ErrorCode.OFFSET_OUT_OF_RANGE),
    (failures.OutOfOrderSequence, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
    (failures.DuplicateSequence, ErrorCode.DUPLICATE_SEQUENCE_NUMBER),
    (failures.InvalidProducerEpoch, ErrorCode.INVALID_PRODUCER_EPOCH),
    (failures.InvalidTxnState, ErrorCode.INVALID_TXN_STATE),
    (failures.UnknownProducer, ErrorCode.UNKNOWN_PRODUCER_ID),
    (failures.InvalidTimestamp, ErrorCode.INVALID_TIMESTAMP),
    (failures.InvalidBatch, ErrorCode.INVALID_RECORD),
    (failures.TransactionCoordinatorFenced, ErrorCode.TRANSACTION_COORDINATOR_FENCED),
    (failures.UnknownPartition, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    (failures.CorruptLog, ErrorCode.CORRUPT_MESSAGE),
    (failures.StorageFailure, ErrorCode.KAFKA_STORAGE_ERROR),
    (batch.UnsupportedMagic, ErrorCode.INVALID_RECORD),
    (batch.CorruptBatch, ErrorCode.CORRUPT_MESSAGE),
    (batch.BatchTooLarge, ErrorCode.MESSAGE_TOO_LARGE),
    (batch.InvalidRecord, ErrorCode.INVALID_RECORD),
    (InvalidAlteration, ErrorCode.INVALID_REQUEST),
    (InvalidConfig, ErrorCode.INVALID_CONFIG),
    (InvalidTopicName, ErrorCode.INVALID_TOPIC_EXCEPTION),
    (MutationQuotaExceeded, ErrorCode.THROTTLING_QUOTA_EXCEEDED),
)

KNOWN = (
    failures.LogError,
    batch.CorruptBatch,
    batch.BatchTooLarge,
    batch.InvalidRecord,
    InvalidConfig,
    InvalidTopicName,
    MutationQuotaExceeded,
)
"""What handlers catch and answer; anything else is a bug of ours and goes up."""


def error_of(error: BaseException) -> ErrorCode:
    """The code a client understands."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return ErrorCode.UNKNOWN_SERVER_ERROR
