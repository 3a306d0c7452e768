import gzip
import tracemalloc

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire import batch, compression
from broker.wire.batch import Record
from broker.wire.compression import Compression, DecompressedTooLarge, DecompressionFailed, compress, decompress

CODECS = [codec for codec in Compression if codec is not Compression.NONE]
BOMB = bytes(20 << 20)


@pytest.mark.parametrize("codec", list(Compression))
@given(st.binary(max_size=2000) | st.binary(min_size=1, max_size=40).map(lambda piece: piece * 3000))
def test_what_was_compressed_reads_back_within_the_bound(codec: Compression, data: bytes) -> None:
    packed = compress(codec, data)
    assert decompress(codec, packed, len(data)) == data
    assert compression.bound(codec, packed) >= len(data)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_is_refused_and_never_takes_more_than_the_limit(codec: Compression) -> None:
    packed = compress(codec, BOMB)
    assert len(packed) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(DecompressedTooLarge):
            decompress(codec, packed, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_the_limit_is_exact(codec: Compression) -> None:
    packed = compress(codec, b"x" * 1000)
    assert decompress(codec, packed, 1000) == b"x" * 1000
    with pytest.raises(DecompressedTooLarge):
        decompress(codec, packed, 999)


@pytest.mark.parametrize("codec", CODECS)
def test_truncated_data_is_refused(codec: Compression) -> None:
    packed = compress(codec, b"some text, some text, some text" * 50)
    for end in range(17 if codec is Compression.SNAPPY else 1, len(packed)):
        with pytest.raises(DecompressionFailed):
            decompress(codec, packed[:end], 1 << 20)


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_in_a_batch_is_a_corrupt_batch(codec: Compression) -> None:
    data = batch.build([Record(0, 0, None, BOMB)], compression=codec)
    with pytest.raises(batch.CorruptBatch, match="decompressed"):
        list(batch.records(batch.split(data)[0], 1 << 20))


def test_snappy_is_read_without_its_frame_too() -> None:
    assert decompress(Compression.SNAPPY, bytes(cramjam.snappy.compress_raw(b"abc" * 99)), 1000) == b"abc" * 99


def test_a_snappy_block_may_not_declare_what_it_cannot_become() -> None:
    with pytest.raises(DecompressionFailed, match="can't become"):
        decompress(Compression.SNAPPY, b"\xff\xff\xff\x7f\x00", 1 << 30)


def test_gzip_members_may_follow_one_another() -> None:
    both = gzip.compress(b"one") + gzip.compress(b"two")
    assert decompress(Compression.GZIP, both, 6) == b"onetwo"


def test_skippable_frames_are_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"
    for codec in (Compression.LZ4, Compression.ZSTD):
        packed = compress(codec, b"data")
        assert compression.bound(codec, skippable + packed) == compression.bound(codec, packed)
