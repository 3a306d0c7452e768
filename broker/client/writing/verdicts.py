"""What a broker's answer to a batch means for the batch.

Most errors that pass leave open whether the batch was appended: a leader that was deposed while its followers copied
the batch says the same as one that never was leader (`DelayedProduce` in Kafka's broker).
"""

from enum import Enum, auto


class Verdict(Enum):
    STORED = auto()
    REPEATED = auto()  # it is stored already
    LATER = auto()  # certainly not appended; send it again
    PERHAPS = auto()  # whether it was appended is open; send it again
    CONTENT = auto()  # certainly not appended, because of a record in it
    PLACE = auto()  # certainly not appended, and nothing else will be to this topic
    GAP = auto()  # one that precedes it is missing in the log
    FINISHED = auto()  # this producer can do no more


_BY_CODE = {
    0: Verdict.STORED,
    46: Verdict.REPEATED,
    45: Verdict.GAP,
    **dict.fromkeys((19, 89), Verdict.LATER),
    # lost or late answers, deposed leaders, disks: all that passes
    **dict.fromkeys((-1, 3, 5, 6, 7, 8, 9, 13, 14, 15, 16, 20, 41, 56, 72, 74, 75, 100), Verdict.PERHAPS),
    # corrupt (in time it may be sent uncorrupted), too large, timestamp, format, policy, record
    **dict.fromkeys((2, 10, 18, 32, 43, 44, 87), Verdict.CONTENT),
    **dict.fromkeys((17, 21, 29, 31, 76), Verdict.PLACE),
}


def verdict(code: int) -> Verdict:
    """By Kafka's error code; one that no broker should give to a producer ends it."""
    return _BY_CODE.get(code, Verdict.FINISHED)


UNKNOWN_TOPIC = frozenset({3, 5, 100})
"""What metadata says of a topic that isn't there, or not yet."""
