"""Bytes as people read them: JSON indented, text as it is, the rest as a hex dump."""

import json
from dataclasses import dataclass

SHOWN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Bytes as a person reads them."""

    kind: str  # json, text, binary, empty, null
    text: str
    size: int
    cut: bool


def shown(data: bytes | None, limit: int = SHOWN_BYTES) -> Shown:
    """JSON is indented, other text is as it is, the rest is a hex dump."""
    if data is None:
        return Shown(kind="null", text="", size=0, cut=False)
    if not data:
        return Shown(kind="empty", text="", size=0, cut=False)
    cut = len(data) > limit
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        head = data[: min(limit, 4096)]
        rows = [head[at : at + 16] for at in range(0, len(head), 16)]
        lines = [f"{16 * n:08x}  {row.hex(' '):<47}  {_printable(row)}" for n, row in enumerate(rows)]
        return Shown(kind="binary", text="\n".join(lines), size=len(data), cut=len(data) > len(head))
    if not cut and text[:1] in "{[":
        try:
            return Shown(
                kind="json", text=json.dumps(json.loads(text), indent=2, ensure_ascii=False), size=len(data), cut=False
            )
        except (ValueError, RecursionError):
            pass
    return Shown(kind="text", text=text[:limit], size=len(data), cut=cut)


def _printable(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


def preview(data: bytes | None, limit: int = 240) -> str:
    """One line of it, for a table."""
    if data is None:
        return ""
    text = data[: limit * 4].decode("utf-8", "replace")
    if "\ufffd" in text and sum(char == "\ufffd" for char in text) > len(text) / 10:
        return data[:48].hex(" ")
    return " ".join(text.split())[:limit]
