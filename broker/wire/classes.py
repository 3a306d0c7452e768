"""Message classes: one slotted class per message or struct, made from the schema on first use."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from broker.wire import schema


class Struct:
    """Base of every message class; `codec` says how to use them."""

    __slots__ = ()
    _message: ClassVar[str]
    _fields: ClassVar[tuple[str, ...]]
    _encoders: ClassVar[dict[int, Callable[..., None]]]

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    __hash__ = None  # type: ignore[assignment]  # mutable values have no hash

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._fields)
        return f"{self.__class__.__name__}({fields})"


@cache
def struct(name: str) -> type[Struct]:
    """The class of a message (`"FetchResponse"`) or of a struct in it (`"FetchResponse.PartitionData"`)."""
    definition = schema.message(name)
    namespace: dict[str, Any] = {"missing": object()}
    parameters, body = [], []
    for field in definition.fields:
        constant = default_source(field, namespace)
        shared = constant.isidentifier() or not constant.endswith(("[]", "()"))
        parameters.append(f"{field.name}={constant if shared else 'missing'}")
        value = field.name if shared else f"{constant} if {field.name} is missing else {field.name}"
        body.append(f"    self.{field.name} = {value}\n")
    keywords = f", *, {', '.join(parameters)}" if parameters else ""
    source = f"def __init__(self{keywords}):\n" + ("".join(body) or "    pass\n")
    exec(compile(source, f"<{name}>", "exec"), namespace)  # noqa: S102 - generated from our own data file
    names = tuple(field.name for field in definition.fields)
    members = {
        "__slots__": names,
        "_fields": names,
        "__init__": namespace["__init__"],
        "__module__": __name__,
        "_message": name,
        "_encoders": {},
    }
    return type(name.rpartition(".")[2], (Struct,), members)


def default_source(field: schema.Field, namespace: dict[str, Any]) -> str:
    """An expression for the field's default; classes it needs are put into `namespace`."""
    if field.default is None or (field.kind == "struct" and not field.array and field.tag is not None):
        return "None"
    if field.array:
        return "[]"
    if field.kind == "struct":
        alias = "new_" + field.struct.rpartition(".")[2]
        namespace[alias] = struct(field.struct)
        return f"{alias}()"
    if field.kind == "bytes":
        return "b''"
    if field.kind == "uuid":
        return repr(bytes(16))
    return repr(field.default)
