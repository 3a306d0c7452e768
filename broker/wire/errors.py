"""Kafka's error codes (`org.apache.kafka.common.protocol.Errors`, 4.4)."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """A code a response carries in `error_code`; struct packing takes the member itself."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
