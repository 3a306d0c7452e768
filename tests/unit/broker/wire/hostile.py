"""Floods of hostile bytes, in a process of their own whose memory can be watched.

    python -m tests.unit.broker.wire.hostile frames|batches COUNT SEED

Prints one JSON object: how many inputs were read and refused, anything else that came out (nothing should), seconds,
and by how many bytes the process's peak of resident memory grew. Everything follows from the seed.
"""

import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from struct import pack
from typing import Any

from broker.wire import codec, framing, schema
from broker.wire.batch import (
    BatchTooLarge,
    Compression,
    CorruptBatch,
    InvalidRecord,
    Record,
    build,
    records,
    split,
    validate,
)
from tests.unit.broker.wire.arbitrary import message, names_and_versions

EXTREMES = (
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x00\xff\xff\xff",
    b"\x7f\xff",
    b"\x80\x00",
    b"\xff\xff\xff\xff\x07",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x7f",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 12,
    b"\x00" * 8,
    b"\x01",
    b"\xc0\x80",
)
ADDRESS_SPACE = 512 << 20  # more than this can't even be asked for


def mutated(generator: random.Random, data: bytes) -> bytes:
    """The bytes with one to three things wrong."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        at = generator.randrange(len(changed) + 1)
        match generator.randrange(8):
            case 0:
                del changed[at:]
            case 1:
                del changed[at : at + generator.randrange(1, 9)]
            case 2:
                changed[at:at] = generator.randbytes(generator.randrange(1, 20))
            case 3:
                changed[at : at + 1] = bytes((generator.randrange(256),))
            case 4:
                changed[at:at] = changed[at : at + generator.randrange(1, 60)]
            case 5:
                extreme = generator.choice(EXTREMES)
                changed[at:at] = extreme
            case _:
                extreme = generator.choice(EXTREMES)
                changed[at : at + len(extreme)] = extreme
    return bytes(changed)


Attempt = Callable[[bytes], str]


def frames(generator: random.Random) -> Iterator[tuple[bytes, Attempt]]:
    """Mutated requests, responses and embedded messages without end, each with how it is read."""
    names = names_and_versions()
    keys = {f"{api.name}Response": key for key, api in schema.apis().items()}
    requests = {f"{api.name}Request": key for key, api in schema.apis().items()}
    while True:
        name, version = generator.choice(names)
        sample = message(generator, name, version)
        for _ in range(8):
            if name in requests:
                header = framing.RequestHeader(requests[name], version, generator.randrange(1 << 31), "client")
                data = b"".join(framing.request(header, sample))[4:]
                yield mutated(generator, data), read_request
            elif name in keys:
                header = framing.RequestHeader(keys[name], version, 7, None)
                data = b"".join(framing.response(header, sample))[4:]
                yield mutated(generator, data), response_reader(keys[name], version)
            else:
                yield mutated(generator, codec.encode(sample, version)), message_reader(name, version)


def read_request(data: bytes) -> str:
    try:
        header, body = framing.parse_request(data)
        framing.parse_body(header, body)
    except codec.Malformed:
        return "refused"
    except framing.UnsupportedRequest:
        return "unsupported"
    return "read"


def response_reader(key: int, version: int) -> Attempt:
    def read(data: bytes) -> str:
        try:
            framing.parse_response(key, version, data)
        except codec.Malformed:
            return "refused"
        return "read"

    return read


def message_reader(name: str, version: int) -> Attempt:
    def read(data: bytes) -> str:
        try:
            codec.decode(name, version, data)
        except codec.Malformed:
            return "refused"
        return "read"

    return read


def batches(generator: random.Random) -> Iterator[tuple[bytes, Attempt]]:
    """Mutated record batches of every codec without end; every other one with a CRC that fits the damage."""
    samples = [
        build([_record(generator, index) for index in range(generator.choice((1, 3, 40)))], compression=codec)
        for codec in Compression
        for _ in range(20)
    ]
    while True:
        changed = bytearray(mutated(generator, generator.choice(samples)))
        if generator.random() < 0.5 and len(changed) > 61:
            changed[8:12] = pack(">i", len(changed) - 12)
            changed[17:21] = pack(">I", _crc(changed))
        yield bytes(changed), read_batches


def read_batches(data: bytes) -> str:
    try:
        for batch in split(data):
            for _ in records(batch, 1 << 20):
                pass
        validate(data, 1 << 20)
    except (CorruptBatch, BatchTooLarge, InvalidRecord):
        return "refused"
    return "read"


def _crc(data: bytearray) -> int:
    from crc32c import crc32c

    return crc32c(data[21:])


def _record(generator: random.Random, index: int) -> Record:
    headers = [("name", b"value"), ("none", None)] if generator.random() < 0.5 else []
    return Record(index, 1_700_000_000_000 + index, b"key", generator.randbytes(generator.randrange(50)), headers)


def flood(source: Iterator[tuple[bytes, Attempt]], count: int) -> dict[str, Any]:
    """Read `count` inputs; whatever isn't one of the expected ends is counted by its name with one example."""
    outcomes: dict[str, Any] = {"read": 0, "refused": 0, "unsupported": 0, "wrong": {}}
    largest = 0
    for _ in range(count):
        data, attempt = next(source)
        largest = max(largest, len(data))
        try:
            outcomes[attempt(data)] += 1
        except Exception as error:
            outcomes["wrong"].setdefault(repr(error)[:200], data.hex())
    return outcomes | {"largest": largest}


def peak() -> int:
    """Bytes of resident memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(kind: str, count: int, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for name, version in names_and_versions():  # so that making the codecs doesn't count as growth
        codec.decode(name, version, codec.encode(codec.struct(name)(), version))
    source = {"frames": frames, "batches": batches}[kind](random.Random(seed))
    flood(source, min(count, 5_000))
    before, start = peak(), time.monotonic()
    outcomes = flood(source, count)
    print(json.dumps(outcomes | {"seconds": round(time.monotonic() - start, 1), "grown": peak() - before}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
