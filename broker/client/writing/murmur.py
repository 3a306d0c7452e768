"""Which partition a key belongs to, as Java's clients have it: 32-bit murmur2 with the seed of Kafka's own."""

_M, _SEED, _ALL = 0x5BD1E995, 0x9747B28C, 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The hash as an unsigned number."""
    size = len(data)
    found = _SEED ^ size
    whole = size & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _ALL
        word = (word ^ word >> 24) * _M & _ALL
        found = found * _M & _ALL ^ word
    if whole < size:
        found = (found ^ int.from_bytes(data[whole:], "little")) * _M & _ALL
    found = (found ^ found >> 13) * _M & _ALL
    return found ^ found >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The key's partition among so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
