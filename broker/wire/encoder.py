"""Encoders as Python source: one function per message and version, made from the schema on first use.

`encode(message, out, cuts)` appends bytes to the list `out`. Where large records were appended uncopied, `cuts` gets
their index in `out`, so that the caller can join everything between them.

Consecutive fixed-size fields, and the length that follows them, are packed at once.
"""

from collections.abc import Callable
from struct import Struct as Packer
from struct import pack
from typing import Any, TypeAlias

from broker.wire import schema, varint
from broker.wire.classes import Struct
from broker.wire.decoder import FIXED

Encoder: TypeAlias = Callable[[Any, list[Any], list[int]], None]
JOINED = 2048  # records of fewer bytes are copied along with what surrounds them: cheaper than a buffer of their own


class NullNotAllowed(TypeError):
    """None in a field that can't be null in this version: a mistake of ours, not of the peer's."""


def make(name: str, version: int) -> Encoder:
    """The encoder of a message or struct in one version."""
    return _Writer(name, version).function()


def append_records(records: Any, out: list[Any], cuts: list[int]) -> None:
    """Append a records field: one buffer, or a list of buffers that follow one another."""
    for piece in records if isinstance(records, list | tuple) else (records,):
        if len(piece) >= JOINED:
            cuts.append(len(out))
        out.append(piece)


def records_size(records: Any) -> int:
    """Bytes of a records field."""
    return sum(map(len, records)) if isinstance(records, list | tuple) else len(records)


def null_refused(name: str) -> NullNotAllowed:
    return NullNotAllowed(f"{name} can't be null in this version")


class _Writer:
    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.flexible = version in schema.message(name).flexible
        self.lines: list[str] = []
        self.indent = 1
        self.formats: list[str] = []  # the run of fixed-size fields that waits to be packed at once
        self.values: list[str] = []
        self.variables = 0
        self.namespace: dict[str, Any] = {
            "pack": pack,
            "uvarint": varint.encode_unsigned,
            "short": varint.SHORT,
            "append_records": append_records,
            "records_size": records_size,
            "null_refused": null_refused,
            "Struct": Struct,
        }

    def function(self) -> Encoder:
        self.write("w = out.append")
        self.struct(self.name, "m")
        self.flush()
        source = "def encode(m, out, cuts):\n" + "\n".join(self.lines) + "\n"
        file = f"<encode {self.name} v{self.version}>"
        exec(compile(source, file, "exec"), self.namespace)  # noqa: S102 - generated from our own data file
        encode: Encoder = self.namespace["encode"]
        return encode

    def write(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)

    def variable(self, prefix: str) -> str:
        self.variables += 1
        return f"{prefix}{self.variables}"

    def pack(self, format_: str, value: str) -> None:
        self.formats.append(format_)
        self.values.append(value)

    def flush(self) -> None:
        if not self.formats:
            return
        writer = "pack_" + "".join(self.formats).replace("?", "x")
        self.namespace[writer] = Packer(">" + "".join(self.formats)).pack
        self.write(f"w({writer}({', '.join(self.values)}))")
        self.formats, self.values = [], []

    def struct(self, name: str, source: str) -> None:
        """Code that appends the struct held by the variable `source`."""
        tagged = []
        for field in schema.message(name).fields:
            if self.flexible and self.version in field.tagged:
                tagged.append(field)
            elif self.version in field.versions:
                self.field(field, f"{source}.{field.name}")
        if self.flexible and not tagged:
            self.pack("B", "0")
        elif self.flexible:
            self.tags(tagged, source)

    def field(self, field: schema.Field, source: str) -> None:
        if field.array:
            self.array(field, source)
        elif field.kind == "struct":
            self.nested(field, source)
        elif field.kind in FIXED:
            self.pack(FIXED[field.kind][0], source)
        else:
            self.sized(field, source)

    def length(self, size: str, narrow: bool, flexible: bool) -> None:
        """Code that appends a length or count, `size` being an expression, -1 for null."""
        if flexible:
            self.flush()
            if not size.isidentifier():
                self.write(f"s = {size}")
                size = "s"
            self.write(f"w(short[{size} + 1] if {size} < {len(varint.SHORT) - 1} else uvarint({size} + 1))")
        else:
            self.pack("h" if narrow else "i", size)
            self.flush()

    def sized(self, field: schema.Field, source: str) -> None:
        flexible = self.flexible and not field.never_flexible
        value, size = self.variable("v"), self.variable("n")
        self.write(f"{value} = {source}")
        self.write(f"if {value} is None:")
        if self.version in field.nullable:
            self.write(f"    {size} = -1")
            self.write("else:")
        else:
            self.write(f"    raise null_refused('{self.name}: {field.name}')")
            self.write("else:")
        if field.kind == "string":
            self.write(f"    {value} = {value}.encode()")
        measure = "records_size" if field.kind == "records" else "len"
        self.write(f"    {size} = {measure}({value})")
        self.length(size, field.kind == "string", flexible)
        self.write(f"if {size} > 0:")
        if field.kind == "records":
            self.write(f"    append_records({value}, out, cuts)")
        else:
            self.write(f"    w({value})")

    def nested(self, field: schema.Field, source: str) -> None:
        value = self.variable("o")
        self.write(f"{value} = {source}")
        if self.version not in field.nullable:
            self.write(f"if {value} is None:")
            self.write(f"    raise null_refused('{self.name}: {field.name}')")
            self.struct(field.struct, value)
            return
        self.flush()
        self.write(f"if {value} is None:")
        self.write("    w(b'\\xff')")
        self.write("else:")
        self.indent += 1
        self.pack("b", "1")
        self.struct(field.struct, value)
        self.flush()
        self.indent -= 1

    def array(self, field: schema.Field, source: str) -> None:
        items, size = self.variable("a"), self.variable("n")
        self.write(f"{items} = {source}")
        self.write(f"if {items} is None:")
        if self.version in field.nullable:
            self.write(f"    {size} = -1")
        else:
            self.write(f"    raise null_refused('{self.name}: {field.name}')")
        self.write("else:")
        self.write(f"    {size} = len({items})")
        self.length(size, False, self.flexible)
        self.write(f"if {size} > 0:")
        self.indent += 1
        if field.kind == "uuid":
            self.write(f"for u in {items}:")
            self.write("    w(pack('16s', u))")
        elif field.kind in FIXED:
            self.write(f"w(pack('>%d{FIXED[field.kind][0]}' % {size}, *{items}))")
        else:
            self.elements(field, items)
        self.indent -= 1

    def elements(self, field: schema.Field, items: str) -> None:
        item = self.variable("e")
        self.write(f"for {item} in {items}:")
        self.indent += 1
        if field.kind == "struct":
            self.write(f"if {item}.__class__ is bytes:")
            self.write(f"    w({item})")
            self.write("    continue")
            self.struct(field.struct, item)
            self.flush()
        else:
            value = self.variable("v")
            self.write(f"{value} = {item}{'.encode()' if field.kind == 'string' else ''}")
            self.length(f"len({value})", field.kind == "string", self.flexible)
            self.write(f"w({value})")
        self.indent -= 1

    def tags(self, tagged: list[schema.Field], source: str) -> None:
        """The tagged section; each field that isn't at its default is encoded into a list of its own first."""
        self.flush()
        found = self.variable("g")
        self.write(f"{found} = []")
        outer = self.variable("x")
        for field in sorted(tagged, key=lambda each: each.tag or 0):
            value = self.variable("v")
            self.write(f"{value} = {source}.{field.name}")
            self.write(f"if {self.differs(field, value)}:")
            self.indent += 1
            self.write(f"{outer} = out")
            self.write("out = []")
            self.write("w = out.append")
            self.field(field, value)
            self.flush()
            self.write(f"{found}.append(({field.tag}, b''.join(out)))")
            self.write(f"out = {outer}")
            self.write("w = out.append")
            self.indent -= 1
        self.write(f"w(uvarint(len({found})) if {found} else {bytes(1)!r})")
        tag, content = self.variable("t"), self.variable("c")
        self.write(f"for {tag}, {content} in {found}:")
        self.write(f"    w(uvarint({tag}))")
        self.write(f"    w(uvarint(len({content})))")
        self.write(f"    w({content})")

    def differs(self, field: schema.Field, value: str) -> str:
        """A condition: the value isn't the default."""
        if field.default is None or (field.kind == "struct" and not field.array):
            return f"{value} is not None"
        if field.array or field.kind == "bytes":
            return value if self.version not in field.nullable else f"{value} is None or {value}"
        if field.kind == "uuid":
            return f"{value} != {bytes(16)!r}"
        return f"{value} != {field.default!r}"
