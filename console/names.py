"""Names of topics, groups, users and devices in addresses: any text, even with slashes, as one path segment."""

import re

from django.urls import register_converter

_PLAIN = re.compile(r"[A-Za-z0-9._:@+=,-]+")


class NameConverter:
    """`a/b` is `a~2Fb`; a name of dots alone, and the empty one, are written so that no client normalises them away."""

    regex = r"[A-Za-z0-9._:@+=,~-]+"

    def to_python(self, value: str) -> str:
        if value == "~":
            return ""
        parts = re.split(r"((?:~[0-9A-F]{2})+)", value)
        try:
            text = "".join(bytes.fromhex(p.replace("~", "")).decode() if p.startswith("~") else p for p in parts)
        except UnicodeDecodeError as error:
            raise ValueError(str(error)) from error
        if self.to_url(text) != value:
            raise ValueError("not how this name is written")
        return text

    def to_url(self, value: str) -> str:
        if not value:
            return "~"
        if set(value) == {"."}:
            return "~2E" * len(value)
        return "".join(
            char if _PLAIN.fullmatch(char) else "".join(f"~{byte:02X}" for byte in char.encode()) for char in value
        )


register_converter(NameConverter, "name")
