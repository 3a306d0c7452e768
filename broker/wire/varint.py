"""Variable-length integers (protobuf's), as compact types and record fields use them.

Readers take a position and return the value with the position after it. They raise `IndexError` where the bytes
end, which decoders turn into their own error, and `VarintTooLong` beyond five (32 bits) or ten bytes (64 bits).
"""

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class VarintTooLong(ValueError):
    """A variable-length integer of more bytes than its type can have."""


def unsigned(data: Buffer, position: int) -> tuple[int, int]:
    """UNSIGNED_VARINT (32 bits)."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                raise VarintTooLong("variable-length integer beyond 32 bits")
            return value, position
        shift += 7
        if shift > 28:
            raise VarintTooLong("variable-length integer of more than 5 bytes")


def signed(data: Buffer, position: int) -> tuple[int, int]:
    """VARINT or VARLONG, zigzag (up to 64 bits)."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFFFFFFFFFF:
                raise VarintTooLong("variable-length integer beyond 64 bits")
            return (value >> 1) ^ -(value & 1), position
        shift += 7
        if shift > 63:
            raise VarintTooLong("variable-length integer of more than 10 bytes")


def _bytes(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


SHORT = tuple(_bytes(value) for value in range(1 << 14))


def encode_unsigned(value: int) -> bytes:
    """The bytes of a non-negative integer; two bytes' worth of values come from a table."""
    return SHORT[value] if 0 <= value < 16384 else _long(value)


def encode_signed(value: int) -> bytes:
    """The zigzag bytes of an integer of at most 64 bits."""
    value = (value << 1) ^ (value >> 63)
    return SHORT[value] if value < 16384 else _bytes(value)


def _long(value: int) -> bytes:
    if not 0 <= value <= 0xFFFFFFFF:
        raise OverflowError(f"{value} is no unsigned 32-bit integer")
    return _bytes(value)
