"""How values look: icons, grouped numbers, rates, bytes, spans of time, moments, live values. Unknown is a dash."""

import json
from datetime import UTC, datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from console.access.rules import token as acl_word
from console.messages.display import Shown, preview, shown

register = template.Library()
DASH = "–"
LONGEST = 2**63 - 1  # what Kafka takes for "never"


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    return format_html(
        '<svg class="i {}" aria-hidden="true"><use href="{}#{}"/></svg>', css, static("vendor/lucide.svg"), name
    )


@register.filter
def num(value: Any) -> str:
    """12,345; a dash for None."""
    if value is None or value == "":
        return DASH
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@register.filter
def exact(value: float) -> str:
    """As it was set: 0.25, 5, 1,000; to six places."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


@register.filter
def rate(value: float | None) -> str:
    """Records per second: 0, 0.4, 12.5, 1,240."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


@register.filter
def size(value: float | None) -> str:
    """IEC bytes."""
    if value is None:
        return DASH
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(amount) < 1024 or unit == "PiB":
            return f"{amount:,.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:,.1f} {unit}"
        amount /= 1024
    return DASH


@register.filter
def span(seconds: float | None) -> str:
    """A length of time in its two largest units: 4 s, 1 min 12 s, 3 h 5 min, 2 d 4 h."""
    if seconds is None:
        return DASH
    whole = int(seconds)
    if whole < 60:
        return _("%(s)d s") % {"s": whole}
    if whole < 3600:
        return _("%(m)d min %(s)d s") % {"m": whole // 60, "s": whole % 60}
    if whole < 86400:
        return _("%(h)d h %(m)d min") % {"h": whole // 3600, "m": whole % 3600 // 60}
    return _("%(d)d d %(h)d h") % {"d": whole // 86400, "h": whole % 86400 // 3600}


@register.filter
def span_ms(milliseconds: float | None) -> str:
    """A configured length of time; -1 is Kafka's "no limit"."""
    if milliseconds is None:
        return DASH
    if milliseconds < 0:
        return _("no limit")
    if milliseconds < 1000:
        return f"{int(milliseconds)} ms"
    days, rest = divmod(int(milliseconds) // 1000, 86400)
    if days and not rest:
        return ngettext("%(n)d day", "%(n)d days", days) % {"n": days}
    return span(milliseconds / 1000)


@register.filter
def moment(value: datetime | float | None, precision: str = "s") -> SafeString | str:
    """An absolute time in the person's zone, the machine-readable one beside it. Numbers are epoch milliseconds."""
    if value is None or value == -1:
        return DASH
    at = value if isinstance(value, datetime) else datetime.fromtimestamp(value / 1000, UTC)
    local = timezone.localtime(at)
    clock = local.strftime("%H:%M:%S")
    if precision == "ms":
        clock += f".{local.microsecond // 1000:03d}"
    day = local.strftime("%Y-%m-%d")
    return format_html(
        '<time datetime="{}" data-moment><span class="date">{} </span>{}</time>', at.isoformat(), day, clock
    )


@register.filter
def day(value: datetime | None) -> str:
    return formats.date_format(timezone.localtime(value), "DATE_FORMAT") if value else DASH


FORMATS = {"num": num, "rate": rate, "size": size, "span": span}


@register.simple_tag
def live(key: str, value: Any, form: str = "num", field: str = "") -> SafeString:
    """A value that moves by itself: `{% live "topic/orders" topic.in_rate "rate" "in" %}`."""
    key = f"{key}/{field}" if field else key
    value = None if value == "" else value  # what a template makes of a missing field
    text = moment(value) if form == "moment" else FORMATS[form](value) if form in FORMATS else str(value or DASH)
    return format_html('<span data-live="{}" data-as="{}">{}</span>', key, form, text)


@register.filter
def percent_of(value: float | None, whole: float | None) -> float:
    """For the width of a bar: 0…100."""
    if not value or not whole:
        return 0
    return round(max(0.0, min(100.0, 100 * value / whole)), 2)


@register.filter
def get(mapping: Any, key: Any) -> Any:
    return mapping.get(key) if mapping else None


@register.filter
def in_words(entry: Any) -> str:
    """A configured length of time or number of bytes as people say it, in brackets; nothing for anything else."""
    try:
        value = int(entry.value or "")
    except ValueError:
        return ""
    if value == LONGEST or (value == -1 and entry.name in ("retention.ms", "retention.bytes")):
        return f"({_('no limit')})"
    if entry.name.endswith(".ms") and value >= 1000:
        return f"({span_ms(value)})"
    return f"({size(value)})" if entry.name.endswith(".bytes") and value >= 1024 else ""


@register.filter
def bytes_preview(data: bytes | None, limit: int = 240) -> str:
    return preview(data, limit)


@register.filter
def bytes_shown(data: bytes | None) -> Shown:
    return shown(data)


@register.filter
def json_text(value: Any) -> str:
    """A recorded value as a person reads it: text as it is, everything else as JSON; a dash for None."""
    if value is None:
        return DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


@register.filter
def acl_token(acl: Any) -> str:
    """An ACL as one word of an address."""
    return acl_word(acl)
