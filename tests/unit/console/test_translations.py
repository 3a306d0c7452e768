"""The catalogue compiled by Python alone is what gettext reads."""

import gettext
from pathlib import Path

from console.translations import catalogues, compile_into, compiled, read

PO = """
msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\nPlural-Forms: nplurals=1; plural=0;\\n"

# a comment
msgid "One"
msgstr "一"

msgctxt "menu"
msgid "One"
msgstr "壹"

#, fuzzy
msgid "Guess"
msgstr "猜"

msgid "%(n)d day"
msgid_plural "%(n)d days"
msgstr[0] "%(n)d 天"

msgid ""
"Two "
"lines"
msgstr ""
"两"
"行"

msgid "Untranslated"
msgstr ""
"""


def test_gettext_reads_what_we_compile(tmp_path: Path) -> None:
    source = tmp_path / "django.po"
    source.write_text(PO, encoding="utf-8")
    target = tmp_path / "django.mo"
    target.write_bytes(compiled(read(source)))
    with target.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)
    assert catalogue.gettext("One") == "一"
    assert catalogue.pgettext("menu", "One") == "壹"
    assert catalogue.ngettext("%(n)d day", "%(n)d days", 5) == "%(n)d 天"
    assert catalogue.gettext("Two lines") == "两行"
    assert catalogue.gettext("Guess") == "Guess"
    assert catalogue.gettext("Untranslated") == "Untranslated"


def test_every_slices_catalogue_is_part_of_the_whole(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "zh_Hans" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "django.po").write_text(PO, encoding="utf-8")
    (folder / "other.po").write_text('msgid "Three"\nmsgstr "三"\n', encoding="utf-8")
    assert [path.name for path in catalogues(tmp_path / "source")["zh_Hans"]] == ["django.po", "other.po"]
    compile_into(tmp_path / "out", tmp_path / "source")
    with (tmp_path / "out" / "zh_Hans" / "LC_MESSAGES" / "django.mo").open("rb") as file:
        catalogue = gettext.GNUTranslations(file)
    assert catalogue.gettext("Three") == "三"
    assert catalogue.gettext("One") == "一"
