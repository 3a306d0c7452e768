"""Translations: `console/locale/<language>/LC_MESSAGES/*.po` compiled at start, by Python alone.

A new user's machine need not have gettext installed, and no compiled file is kept in the repository: the catalogue
is written into the data folder when it is missing or older than its source.
"""

import ast
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "locale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    context: str
    text: str
    plural: str
    translations: tuple[str, ...]
    fuzzy: bool

    @property
    def identity(self) -> str:
        """How a .mo file and gettext name the message."""
        identity = f"{self.context}\x04{self.text}" if self.context else self.text
        return f"{identity}\x00{self.plural}" if self.plural else identity


class MalformedCatalogue(ValueError):
    """A .po file has a line that is not part of the format."""


def read(path: Path) -> Iterator[Message]:
    """The messages of a .po file, the header (empty text) among them."""
    fields: dict[str, str] = {}
    current = ""
    fuzzy = next_fuzzy = False
    for number, raw in enumerate([*path.read_text(encoding="utf-8").splitlines(), "msgid"], 1):
        line = raw.strip()
        keyword, _, rest = line.partition(" ")
        starts = keyword == "msgctxt" or (keyword == "msgid" and current != "msgctxt")
        if starts and "msgid" in fields:
            yield _message(fields, fuzzy)
            fields = {}
        if starts:
            fuzzy, next_fuzzy = next_fuzzy, False
        if not line or line.startswith("#"):
            next_fuzzy = next_fuzzy or (line.startswith("#,") and "fuzzy" in line)
        elif line.startswith('"'):
            fields[current] += ast.literal_eval(line)
        elif keyword.startswith("msg"):
            current = keyword
            fields[current] = ast.literal_eval(rest) if rest else ""
        else:
            raise MalformedCatalogue(f"{path}:{number}: {raw}")


def _message(fields: dict[str, str], fuzzy: bool) -> Message:
    forms = tuple(fields[key] for key in sorted(fields) if key.startswith("msgstr"))
    return Message(
        context=fields.get("msgctxt", ""),
        text=fields["msgid"],
        plural=fields.get("msgid_plural", ""),
        translations=forms,
        fuzzy=fuzzy,
    )


def compiled(messages: Iterator[Message]) -> bytes:
    """A .mo file (GNU gettext manual, 10.3): sorted ids and texts with their lengths and offsets, little-endian."""
    known = {
        message.identity.encode(): "\x00".join(message.translations).encode()
        for message in messages
        if message.translations and all(message.translations) and not (message.fuzzy and message.text)
    }
    pairs = sorted(known.items())
    ids = texts = b""
    spans = []
    for identity, text in pairs:
        spans.append((len(identity), len(ids), len(text), len(texts)))
        ids += identity + b"\0"
        texts += text + b"\0"
    table = 7 * 4
    ids_at = table + 16 * len(pairs)
    texts_at = ids_at + len(ids)
    header = struct.pack("<7I", 0x950412DE, 0, len(pairs), table, table + 8 * len(pairs), 0, 0)
    originals = b"".join(struct.pack("<2I", length, ids_at + at) for length, at, _, _ in spans)
    translated = b"".join(struct.pack("<2I", length, texts_at + at) for _, _, length, at in spans)
    return header + originals + translated + ids + texts


def catalogues(source: Path = SOURCE) -> dict[str, list[Path]]:
    """The .po files of each language: every one in its folder, so that each slice may have its own."""
    return {
        folder.name: sorted(folder.glob("LC_MESSAGES/*.po")) for folder in sorted(source.iterdir()) if folder.is_dir()
    }


def compile_into(folder: Path, source: Path = SOURCE) -> None:
    """Brings the compiled catalogues in `folder` up to date with `source`; several processes may try at once."""
    for language, paths in catalogues(source).items():
        target = folder / language / "LC_MESSAGES" / "django.mo"
        newest = max((path.stat().st_mtime_ns for path in paths), default=0)
        if target.exists() and target.stat().st_mtime_ns >= newest:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        draft.write_bytes(compiled(message for path in paths for message in read(path)))
        draft.replace(target)
