"""Arbitrary messages of any name and version: as Hypothesis strategies, and quickly from a seeded generator."""

import random
from functools import cache
from typing import Any

from hypothesis import strategies as st

from broker.wire import codec, schema
from broker.wire.errors import ErrorCode

BOUNDS = {
    "int8": (-(1 << 7), (1 << 7) - 1),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
}
MOMENT = 4_000_000_000_000  # ms; beyond the year 2096, and within what a datetime can say


def names_and_versions() -> list[tuple[str, int]]:
    """Every message the definitions have, in each of its versions."""
    return [
        (name, version)
        for name in schema.message_names()
        for version in range(schema.message(name).versions.low, schema.message(name).versions.high + 1)
    ]


@cache
def messages(name: str, version: int) -> st.SearchStrategy[Any]:
    """Messages (or structs) whose fields hold anything that this version can carry."""
    cls = codec.struct(name)
    carried = {
        field.name: _values(field, version)
        for field in schema.message(name).fields
        if version in field.versions or version in field.tagged
    }
    return st.builds(cls, **carried)


def _values(field: schema.Field, version: int) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    tagged_struct = field.tag is not None and field.kind == "struct" and not field.array
    one = messages(field.struct, version) if field.kind == "struct" else _primitives(field)
    if tagged_struct:  # one that equals the default is indistinguishable from none
        default = codec.struct(field.struct)()
        return st.none() | one.filter(lambda value: value != default)
    if field.array:
        one = st.lists(one, max_size=3)
    return st.none() | one if version in field.nullable else one


def _primitives(field: schema.Field) -> st.SearchStrategy[Any]:
    match field.kind:
        case "string":
            return st.text(max_size=12)
        case "bytes" | "records":
            return st.binary(max_size=12)
        case "uuid":
            return st.binary(min_size=16, max_size=16)
        case "bool":
            return st.booleans()
        case "float64":
            return st.floats(allow_nan=False)
        case kind:
            return _integers(field.name, *BOUNDS[kind])


def _integers(name: str, low: int, high: int) -> st.SearchStrategy[int]:
    """All of the type's values, but for what other implementations give a type of their own."""
    if name.endswith("error_code"):
        return st.sampled_from([int(code) for code in ErrorCode if code <= ErrorCode.REBOOTSTRAP_REQUIRED])
    if name.endswith(("_ms", "timestamp")):
        return st.integers(0, min(high, MOMENT))
    return st.integers(low, high)


def message(generator: random.Random, name: str, version: int) -> Any:
    """One such message, by chance alone: a thousand times as fast, for floods of hostile bytes."""
    made = codec.struct(name)()
    for field in schema.message(name).fields:
        if version in field.versions or version in field.tagged:
            setattr(made, field.name, _value(generator, field, version))
    return made


def _value(generator: random.Random, field: schema.Field, version: int) -> Any:
    if version in field.nullable and generator.random() < 0.2:
        return None
    if not field.array:
        one = _element(generator, field, version)
        if field.kind == "struct" and field.tag is not None and one == codec.struct(field.struct)():
            return None  # a tagged struct that equals the default is indistinguishable from none
        return one
    return [_element(generator, field, version) for _ in range(generator.randrange(4))]


def _element(generator: random.Random, field: schema.Field, version: int) -> Any:
    match field.kind:
        case "struct":
            return message(generator, field.struct, version)
        case "string":
            return generator.choice(("", "a", "topic", "größer", "名" * generator.randrange(60)))
        case "bytes" | "records":
            return generator.randbytes(generator.randrange(40))
        case "uuid":
            return generator.randbytes(16)
        case "bool":
            return generator.random() < 0.5
        case "float64":
            return generator.random()
        case kind:
            low, high = BOUNDS[kind]
            return generator.choice((0, 1, -1 if low else 2, low, high, generator.randint(low, high)))
