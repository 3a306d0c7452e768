"""Decoders as Python source: one function per message and version, made from the schema on first use.

`decode(data, pos, end) -> (message, pos)`. Structs are inlined, so a message is one straight run of code with a loop
per array. What keeps hostile bytes harmless:

- Nothing is allocated by a declared size: a string's or a byte field's end is compared with the end of the data
  first, an array's count with what its elements take at least. What a decoder allocates is bounded by the bytes it
  was given times the size of an object per element.
- An element may take a single byte and become an object of two hundred, so a message has at most MAX_ELEMENTS
  structs, strings and byte fields in its arrays. Kafka's largest clusters stay below that.
- Fixed-size fields are read by `struct.unpack_from`, which checks bounds itself (`struct.error`), single bytes by
  indexing (`IndexError`); the caller turns both into `Malformed`. Positions only ever grow.

Consecutive fixed-size fields, and the length that follows them, are read by one `unpack_from`.
"""

from collections.abc import Callable
from struct import Struct as Packer
from struct import unpack_from
from typing import Any, TypeAlias

from broker.wire import schema, varint
from broker.wire.classes import default_source, struct

Decoder: TypeAlias = Callable[[Any, int, int], tuple[Any, int]]

FIXED = {
    "bool": ("?", 1),
    "int8": ("b", 1),
    "uint16": ("H", 2),
    "int16": ("h", 2),
    "uint32": ("I", 4),
    "int32": ("i", 4),
    "int64": ("q", 8),
    "float64": ("d", 8),
    "uuid": ("16s", 16),
}
MAX_ELEMENTS = 1 << 19


class BadLength(ValueError):
    """A length, count or marker that can't be right."""


class BadTag(BadLength):
    """A tagged field whose size isn't that of its content."""


def make(name: str, version: int) -> Decoder:
    """The decoder of a message or struct in one version."""
    return _Writer(name, version).function()


def views(name: str) -> bool:
    """Whether the message carries records, so that its decoder works on a memoryview instead of bytes."""
    return any(
        field.kind == "records" or (field.kind == "struct" and views(field.struct))
        for field in schema.message(name).fields
    )


def minimum(name: str, version: int) -> int:
    """The fewest bytes a struct can take in this version."""
    message = schema.message(name)
    flexible = version in message.flexible
    return flexible + sum(
        _field_minimum(field, version, flexible)
        for field in message.fields
        if version in field.versions and not (flexible and version in field.tagged)
    )


def _field_minimum(field: schema.Field, version: int, flexible: bool) -> int:
    if field.array:
        return 1 if flexible else 4
    if field.kind == "struct":
        return 1 if version in field.nullable else minimum(field.struct, version)
    if field.kind in FIXED:
        return FIXED[field.kind][1]
    if flexible and not field.never_flexible:
        return 1
    return 2 if field.kind == "string" else 4


class _Writer:
    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.flexible = version in schema.message(name).flexible
        self.view = views(name.partition(".")[0])
        self.lines: list[str] = []
        self.indent = 1
        self.formats: list[str] = []  # the run of fixed-size fields that waits to be unpacked at once
        self.targets: list[str] = []
        self.variables = 0
        self.namespace: dict[str, Any] = {
            "new": object.__new__,
            "unpack_from": unpack_from,
            "uvarint": varint.unsigned,
            "skip_tags": skip_tags,
            "BadLength": BadLength,
            "BadTag": BadTag,
        }

    def function(self) -> Decoder:
        self.write(f"room = {MAX_ELEMENTS}")
        target = self.struct(self.name)
        self.flush()
        self.write(f"return {target}, pos")
        source = "def decode(data, pos, end):\n" + "\n".join(self.lines) + "\n"
        file = f"<decode {self.name} v{self.version}>"
        exec(compile(source, file, "exec"), self.namespace)  # noqa: S102 - generated from our own data file
        decode: Decoder = self.namespace["decode"]
        return decode

    def write(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)

    def variable(self, prefix: str) -> str:
        self.variables += 1
        return f"{prefix}{self.variables}"

    def unpack(self, format_: str, target: str) -> None:
        self.formats.append(format_)
        self.targets.append(target)

    def flush(self) -> None:
        if not self.formats:
            return
        packer = Packer(">" + "".join(self.formats))
        reader = "unpack_" + "".join(self.formats).replace("?", "x")
        self.namespace[reader] = packer.unpack_from
        self.write(f"{', '.join(self.targets)}, = {reader}(data, pos)")
        self.write(f"pos += {packer.size}")
        self.formats, self.targets = [], []

    def struct(self, name: str) -> str:
        """Code that makes the struct; returns the variable that holds it."""
        definition = schema.message(name)
        cls = "cls_" + name.replace(".", "_")
        self.namespace[cls] = struct(name)
        target = self.variable("o")
        self.write(f"{target} = new({cls})")
        tagged, absent = [], []
        for field in definition.fields:
            if self.flexible and self.version in field.tagged:
                tagged.append(field)
            elif self.version not in field.versions:
                absent.append(field)
        for field in (*absent, *tagged):
            self.write(f"{target}.{field.name} = {default_source(field, self.namespace)}")
        for field in definition.fields:
            if field not in absent and field not in tagged:
                self.field(field, f"{target}.{field.name}")
        if self.flexible:
            self.flush()
            self.tags(tagged, target)
        return target

    def field(self, field: schema.Field, target: str) -> None:
        if field.array:
            self.array(field, target)
        elif field.kind == "struct":
            self.nested(field, target)
        elif field.kind in FIXED:
            self.unpack(FIXED[field.kind][0], target)
        else:
            self.sized(field, target)

    def length(self, narrow: bool, flexible: bool) -> str:
        """Code that reads a length or count, less one where compact; returns its variable, -1 for null."""
        n = self.variable("n")
        if not flexible:
            self.unpack("h" if narrow else "i", n)
            self.flush()
            return n
        self.flush()
        self.write(f"{n} = data[pos] - 1")
        self.write("pos += 1")
        self.write(f"if {n} > 126:")
        self.write(f"    {n}, pos = uvarint(data, pos - 1)")
        self.write(f"    {n} -= 1")
        return n

    def sized(self, field: schema.Field, target: str) -> None:
        flexible = self.flexible and not field.never_flexible
        n = self.length(field.kind == "string", flexible)
        if self.version in field.nullable:
            self.write(f"if {n} == -1:")
            self.write(f"    {target} = None")
            self.write("else:")
            self.indent += 1
        self.write(f"q = pos + {n}")
        self.write(f"if {n} < 0 or q > end:")
        self.write(f"    raise BadLength('{field.name} of %d bytes where %d are left' % ({n}, end - pos))")
        if field.kind == "string":
            value = "str(data[pos:q], 'utf-8')" if self.view else "data[pos:q].decode()"
        elif field.kind == "bytes" and self.view:
            value = "bytes(data[pos:q])"
        else:
            value = "data[pos:q]"
        self.write(f"{target} = {value}")
        self.write("pos = q")
        if self.version in field.nullable:
            self.indent -= 1

    def nested(self, field: schema.Field, target: str) -> None:
        if self.version not in field.nullable:
            self.write(f"{target} = {self.struct(field.struct)}")
            return
        marker = self.variable("n")
        self.unpack("b", marker)
        self.flush()
        self.write(f"if {marker} < 0:")
        self.write(f"    {target} = None")
        self.write("else:")
        self.indent += 1
        inner = self.struct(field.struct)
        self.flush()
        self.write(f"{target} = {inner}")
        self.indent -= 1

    def array(self, field: schema.Field, target: str) -> None:
        n = self.length(False, self.flexible)
        if self.version in field.nullable:
            self.write(f"if {n} == -1:")
            self.write(f"    {target} = None")
            self.write("else:")
            self.indent += 1
        fewest = self.element_minimum(field)
        self.write(f"if {n} < 0 or {n} * {fewest} > end - pos:")
        self.write(f"    raise BadLength('%d {field.name} where %d bytes are left' % ({n}, end - pos))")
        if field.kind in FIXED:
            self.fixed_elements(field, target, n)
        else:
            self.write(f"room -= {n}")
            self.write("if room < 0:")
            self.write(f"    raise BadLength('more than {MAX_ELEMENTS} elements')")
            self.elements(field, target, n)
        if self.version in field.nullable:
            self.indent -= 1

    def element_minimum(self, field: schema.Field) -> int:
        if field.kind in FIXED:
            return FIXED[field.kind][1]
        if field.kind == "struct":
            return max(minimum(field.struct, self.version), 1)
        return 1 if self.flexible else 2 if field.kind == "string" else 4

    def fixed_elements(self, field: schema.Field, target: str, n: str) -> None:
        letter, size = FIXED[field.kind]
        if field.kind == "uuid":
            element = "bytes(data[i:i + 16])" if self.view else "data[i:i + 16]"
            self.write(f"{target} = [{element} for i in range(pos, pos + {n} * 16, 16)]")
        else:
            self.write(f"{target} = list(unpack_from('>%d{letter}' % {n}, data, pos))")
        self.write(f"pos += {n} * {size}")

    def elements(self, field: schema.Field, target: str, n: str) -> None:
        items, add = self.variable("a"), self.variable("f")
        self.write(f"{target} = {items} = []")
        self.write(f"{add} = {items}.append")
        self.write(f"for _ in range({n}):")
        self.indent += 1
        if field.kind == "struct":
            item = self.struct(field.struct)
            self.flush()
        else:
            item = self.variable("e")
            element = schema.Field(
                name=field.name,
                kind=field.kind,
                array=False,
                struct="",
                versions=field.versions,
                nullable=schema.Versions(low=0, high=schema.NO_VERSION),
                tagged=field.tagged,
                tag=None,
                default=None,
                never_flexible=False,
            )
            self.sized(element, item)
        self.write(f"{add}({item})")
        self.indent -= 1

    def tags(self, tagged: list[schema.Field], target: str) -> None:
        """The tagged section: known ones into their fields, others checked for length and dropped."""
        n = self.variable("n")
        self.write(f"{n} = data[pos]")
        self.write("pos += 1")
        self.write(f"if {n}:")
        self.indent += 1
        if not tagged:
            self.write("pos = skip_tags(data, pos - 1, end)")
            self.indent -= 1
            return
        tag, size, stop = self.variable("t"), self.variable("n"), self.variable("q")
        self.write(f"{n}, pos = uvarint(data, pos - 1)")
        self.write(f"for _ in range({n}):")
        self.indent += 1
        self.write(f"{tag}, pos = uvarint(data, pos)")
        self.write(f"{size}, pos = uvarint(data, pos)")
        self.write(f"{stop} = pos + {size}")
        self.write(f"if {stop} > end:")
        self.write(f"    raise BadLength('tag of %d bytes where %d are left' % ({size}, end - pos))")
        for index, field in enumerate(tagged):
            self.write(f"{'elif' if index else 'if'} {tag} == {field.tag}:")
            self.indent += 1
            self.field(field, f"{target}.{field.name}")
            self.flush()
            self.write(f"if pos != {stop}:")
            self.write(f"    raise BadTag('{field.name} is not of the size its tag says')")
            self.indent -= 1
        self.write("else:")
        self.write(f"    pos = {stop}")
        self.indent -= 2


def skip_tags(data: Any, pos: int, end: int) -> int:
    """The position after a tagged section whose tags nobody knows."""
    count, pos = varint.unsigned(data, pos)
    for _ in range(count):
        _tag, pos = varint.unsigned(data, pos)
        size, pos = varint.unsigned(data, pos)
        pos += size
        if pos > end:
            raise BadLength(f"tag of {size} bytes where {end - pos + size} are left")
    return pos
