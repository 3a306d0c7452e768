"""Checks of what no compiler sees: templates, translations, vendored files. `python -m tests.static`.

- every template compiles, and none has an inline script, style or handler (the Content-Security-Policy forbids them);
- every translatable string has a translation in every language (`--missing` prints the lacking ones as .po entries);
- every icon that a template names is in the sprite;
- the vendored files are those whose checksums are listed.
"""

import ast
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates"
VENDOR = ROOT / "console" / "static" / "vendor"
INLINE = (
    (re.compile(r"<script(?![^>]*\bsrc=)", re.I), "an inline script"),
    (re.compile(r"<style\b", re.I), "an inline style sheet"),
    (re.compile(r"\sstyle\s*=", re.I), "a style attribute"),
    (re.compile(r"\son[a-z]+\s*=\s*[\"']", re.I), "an inline handler"),
    (re.compile(r"\shx-on\b", re.I), "an hx-on handler"),
    (re.compile(r"javascript:", re.I), "a javascript: address"),
    (re.compile(r"(?:src|href)=[\"']https?://", re.I), "something fetched from elsewhere"),
)
CALLS = {"_": 1, "gettext": 1, "gettext_lazy": 1, "gettext_noop": 1, "ngettext": 2, "ngettext_lazy": 2}
CALLS_WITH_CONTEXT = {"pgettext": 1, "pgettext_lazy": 1, "npgettext": 2}
Wanted = tuple[str, str, str]  # context, text, plural


def set_up() -> None:
    os.environ.setdefault("SLUICE_DATA", tempfile.mkdtemp(prefix="sluice-static-"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    import django

    django.setup()


def template_problems() -> Iterator[str]:
    from django.template import TemplateSyntaxError, loader

    for path in sorted(TEMPLATES.rglob("*.html")):
        name = str(path.relative_to(TEMPLATES))
        try:
            loader.get_template(name)
        except TemplateSyntaxError as error:
            yield f"templates/{name}: {error}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for pattern, what in INLINE:
                if pattern.search(line):
                    yield f"templates/{name}:{number}: {what}"


def strings_in_python() -> Iterator[tuple[str, Wanted]]:
    for path in sorted((ROOT / "console").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if "gettext" not in path.read_text(encoding="utf-8"):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if called in CALLS and len(texts) >= CALLS[called]:
                yield where, ("", texts[0], texts[1] if CALLS[called] == 2 else "")
            elif called in CALLS_WITH_CONTEXT and len(texts) > CALLS_WITH_CONTEXT[called]:
                yield where, (texts[0], texts[1], texts[2] if CALLS_WITH_CONTEXT[called] == 2 else "")


def strings_in_templates() -> Iterator[tuple[str, Wanted]]:
    """What Django's own extraction finds: it turns a template into the calls that gettext's scanner reads."""
    from django.utils.translation.template import templatize

    for path in sorted(TEMPLATES.rglob("*.html")):
        source = templatize(path.read_text(encoding="utf-8"), origin=str(path))
        where = str(path.relative_to(ROOT))
        for match in re.finditer(r"\b(gettext|ngettext|pgettext|npgettext)\(", source):
            arguments = _arguments(source, match.end())
            kind = match.group(1)
            context = arguments.pop(0) if kind in ("pgettext", "npgettext") else ""
            yield where, (context, arguments[0], arguments[1] if kind in ("ngettext", "npgettext") else "")


LITERAL = re.compile(r"\s*u?((?:'(?:[^'\\]|\\.)*')|(?:\"(?:[^\"\\]|\\.)*\"))\s*,?", re.S)


def _arguments(source: str, at: int) -> list[str]:
    found = []
    while match := LITERAL.match(source, at):
        found.append(ast.literal_eval(match.group(1)))
        at = match.end()
    return found


def wanted_strings() -> dict[Wanted, str]:
    """Every string that people may see, and one place where it is."""
    found: dict[Wanted, str] = {}
    for where, wanted in [*strings_in_python(), *strings_in_templates()]:
        if wanted[1].strip():
            found.setdefault(wanted, where)
    return found


def untranslated() -> Iterator[tuple[str, Wanted, str]]:
    """(language, string, where) of what has no translation; a translation must keep its placeholders."""
    from console.translations import catalogues, read

    wanted = wanted_strings()
    for language, paths in catalogues().items():
        known = {(m.context, m.text, m.plural): m for path in paths for m in read(path) if not m.fuzzy}
        texts = {(context, text): message for (context, text, _), message in known.items()}
        for one, where in wanted.items():
            message = known.get(one) or (texts.get(one[:2]) if not one[2] else None)
            if message is None or not message.translations or not all(message.translations):
                yield language, one, where
                continue
            names = set(re.findall(r"%\(\w+\)[sdf]", one[1]))
            lost = names - set(re.findall(r"%\(\w+\)[sdf]", message.translations[-1])) - {"%(n)s", "%(n)d"}
            if lost:
                yield language, one, f"{where} (the translation lost {', '.join(sorted(lost))})"


def vendor_problems() -> Iterator[str]:
    listed = {one["file"]: one for one in json.loads((VENDOR / "vendor.json").read_text(encoding="utf-8"))["files"]}
    present = {path.name for path in VENDOR.iterdir()} - {"vendor.json"}
    for name in sorted(present ^ listed.keys()):
        yield f"console/static/vendor/{name}: {'is not listed' if name in present else 'is missing'}"
    for name in sorted(present & listed.keys()):
        if not all(listed[name].get(key) for key in ("package", "version", "licence")):
            yield f"console/static/vendor/{name}: has no package, version or licence"
        if hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() != listed[name]["sha256"]:
            yield f"console/static/vendor/{name}: is not the file whose checksum is listed"


def icon_problems() -> Iterator[str]:
    """An icon that the sprite lacks is drawn as nothing, and nobody notices."""
    drawn = set(re.findall(r'<symbol id="([^"]+)"', (VENDOR / "lucide.svg").read_text(encoding="utf-8")))
    for path in sorted(TEMPLATES.rglob("*.html")):
        for name in re.findall(r'{% icon "([^"]+)"', path.read_text(encoding="utf-8")):
            if name not in drawn:
                yield f"{path.relative_to(ROOT)}: there is no icon {name!r} in the sprite"


def main(arguments: list[str]) -> int:
    set_up()
    if "--missing" in arguments:
        for _, (context, text, plural), where in untranslated():
            print(f"# {where}")
            if context:
                print(f"msgctxt {_quoted(context)}")
            print(f"msgid {_quoted(text)}")
            if plural:
                print(f'msgid_plural {_quoted(plural)}\nmsgstr[0] ""\n')
            else:
                print('msgstr ""\n')
        return 0
    problems = [*template_problems(), *icon_problems(), *vendor_problems()]
    problems += [f"{where}: no {language} translation of {one[1]!r}" for language, one, where in untranslated()]
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
