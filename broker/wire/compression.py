"""The codecs of record batches: gzip, snappy (xerial's framing and raw), lz4 frames, zstd.

Decompression is bounded twice. The size is never taken from what a header declares: zstd and lz4 frames are walked
block by block first, and what their blocks can make at most (128 KiB a zstd block, 255 times its size an lz4 block)
is what gets allocated; snappy's declared size is believed up to the format's best ratio; gzip grows as it goes. And
nothing ever makes more than the caller's limit.
"""

import zlib
from collections.abc import Callable
from enum import IntEnum
from struct import Struct as Packer
from struct import error as packing_error
from typing import TypeAlias

import cramjam

Buffer: TypeAlias = bytes | bytearray | memoryview

GZIP_WINDOW = 31  # zlib: a gzip header, window of 2^15
XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER = XERIAL_MAGIC + (1).to_bytes(4, "big") * 2
XERIAL_BLOCK = 32 * 1024
GZIP_RATIO = 1032  # deflate's best
SNAPPY_RATIO = 22  # a copy of 64 bytes takes 3
LZ4_RATIO = 255
LZ4_BLOCKS = {4: 1 << 16, 5: 1 << 18, 6: 1 << 20, 7: 1 << 22}
ZSTD_BLOCK = 128 * 1024
ZSTD_LEVEL = 3

_u32 = Packer("<I").unpack_from
_u32_be = Packer(">I").unpack_from


class Compression(IntEnum):
    """A batch's attributes, bits 0-2."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class DecompressionFailed(ValueError):
    """Bytes that the codec can't read."""


class DecompressedTooLarge(DecompressionFailed):
    """Bytes that would become more than the limit."""


def compress(codec: Compression, data: Buffer) -> bytes:
    """The bytes as the Java client writes them; snappy in xerial's framing."""
    if codec is Compression.NONE:
        return bytes(data)
    if codec is Compression.GZIP:
        packer = zlib.compressobj(wbits=GZIP_WINDOW)
        return packer.compress(data) + packer.flush()
    if codec is Compression.LZ4:
        frame = cramjam.lz4.Compressor(block_linked=False)  # Kafka's Java reads independent blocks only
        frame.compress(data)
        return bytes(frame.finish())
    if codec is Compression.ZSTD:
        return bytes(cramjam.zstd.compress(data, level=ZSTD_LEVEL))
    parts = [XERIAL_HEADER]
    for start in range(0, len(data), XERIAL_BLOCK):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + XERIAL_BLOCK]))
        parts += (len(block).to_bytes(4, "big"), block)
    return b"".join(parts)


def decompress(codec: Compression, data: Buffer, limit: int) -> bytes | bytearray:
    """What was compressed, at most `limit` bytes. Raises DecompressionFailed and DecompressedTooLarge."""
    view = memoryview(data)
    try:
        if codec is Compression.NONE:
            return bytes(view)
        if codec is Compression.GZIP:
            return _gunzip(view, limit)
        if codec is Compression.SNAPPY:
            return _unsnappy(view, limit)
        if codec is Compression.LZ4:
            return _fill(cramjam.lz4.decompress_into, view, _lz4_bound(view), limit)
        return _fill(cramjam.zstd.decompress_into, view, _zstd_bound(view), limit)
    except (zlib.error, cramjam.DecompressionError, packing_error, IndexError) as error:
        raise DecompressionFailed(f"{codec.name.lower()}: {error}") from None


def bound(codec: Compression, data: Buffer) -> int:
    """The most bytes that the data can become, found without decompressing. Raises DecompressionFailed."""
    view = memoryview(data)
    try:
        if codec is Compression.NONE:
            return len(view)
        if codec is Compression.GZIP:
            return len(view) * GZIP_RATIO
        if codec is Compression.SNAPPY:
            return len(view) * SNAPPY_RATIO
        return _lz4_bound(view) if codec is Compression.LZ4 else _zstd_bound(view)
    except (packing_error, IndexError) as error:
        raise DecompressionFailed(f"{codec.name.lower()}: {error}") from None


def _fill(decompress_into: Callable[[Buffer, bytearray], int], view: memoryview, bound: int, limit: int) -> bytearray:
    """Decompress into a buffer of what the blocks can make at most, or of one byte more than the limit."""
    output = bytearray(min(bound, limit + 1))
    try:
        size = decompress_into(view, output)
    except cramjam.DecompressionError:
        if bound > limit and len(output) > limit:
            raise DecompressedTooLarge(f"more than {limit} bytes when decompressed, or damaged") from None
        raise
    if size > limit:
        raise DecompressedTooLarge(f"more than {limit} bytes when decompressed")
    del output[size:]
    return output


def _gunzip(view: memoryview, limit: int) -> bytes:
    parts: list[bytes] = []
    rest: Buffer = view
    room = limit
    while rest:  # members may follow one another
        unpacker = zlib.decompressobj(wbits=GZIP_WINDOW)
        part = unpacker.decompress(rest, room + 1)
        room -= len(part)
        if room < 0:
            raise DecompressedTooLarge(f"more than {limit} bytes when decompressed")
        if not unpacker.eof:
            raise DecompressionFailed("gzip: the data ends early")
        parts.append(part)
        rest = unpacker.unused_data
    return b"".join(parts)


def _unsnappy(view: memoryview, limit: int) -> bytes | bytearray:
    if view[:8] != XERIAL_MAGIC:
        return _unsnappy_block(view, limit)
    parts: list[bytes | bytearray] = []
    position = len(XERIAL_HEADER)
    while position < len(view):
        (size,) = _u32_be(view, position)
        position += 4
        if size > len(view) - position:
            raise DecompressionFailed(f"snappy: block of {size} bytes where {len(view) - position} are left")
        part = _unsnappy_block(view[position : position + size], limit)
        limit -= len(part)
        parts.append(part)
        position += size
    return b"".join(parts)


def _unsnappy_block(view: memoryview, limit: int) -> bytearray:
    declared = cramjam.snappy.decompress_raw_len(view)
    if declared > limit:
        raise DecompressedTooLarge(f"{declared} bytes when decompressed, allowed are {limit}")
    if declared > len(view) * SNAPPY_RATIO:
        raise DecompressionFailed(f"snappy: {len(view)} bytes can't become {declared}")
    output = bytearray(declared)
    size = cramjam.snappy.decompress_raw_into(view, output)
    del output[size:]
    return output


def _lz4_bound(view: memoryview) -> int:
    """The most bytes that the frames' blocks can become."""
    bound = position = 0
    while position < len(view):
        (magic,) = _u32(view, position)
        if magic >> 4 == 0x184D2A5:
            position += 8 + _u32(view, position + 4)[0]
            continue
        if magic != 0x184D2204:
            raise DecompressionFailed("lz4: not a frame")
        flags, block = view[position + 4], LZ4_BLOCKS.get(view[position + 5] >> 4 & 7, 0)
        position += 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
        while size := _u32(view, position)[0]:
            stored, size = size >> 31, size & 0x7FFFFFFF
            bound += size if stored else min(block, size * LZ4_RATIO)
            position += 4 + size + (4 if flags & 16 else 0)
        position += 4 + (4 if flags & 4 else 0)
    return bound


def _zstd_bound(view: memoryview) -> int:
    """The most bytes that the frames' blocks can become."""
    bound = position = 0
    while position < len(view):
        (magic,) = _u32(view, position)
        if magic >> 4 == 0x184D2A5:
            position += 8 + _u32(view, position + 4)[0]
            continue
        if magic != 0xFD2FB528:
            raise DecompressionFailed("zstd: not a frame")
        flags = view[position + 4]
        single = flags >> 5 & 1
        position += 5 + (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        last = 0
        while not last:
            head = view[position] | view[position + 1] << 8 | view[position + 2] << 16
            last, kind, size = head & 1, head >> 1 & 3, head >> 3
            bound += size if kind < 2 else ZSTD_BLOCK
            position += 3 + (1 if kind == 1 else size)
        position += 4 if flags & 4 else 0
    return bound
