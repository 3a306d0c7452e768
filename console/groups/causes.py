"""What holds a lagging group back, said only where the numbers show it.

Pure: from a group of the picture, its positions as the broker told them, and the rates of the topics it reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from console.groups.queries import Position
from console.snapshot import Group

STANDS_SECONDS = 30.0
MOST = 0.6  # of the lag in one partition makes it the one to look at
FEW = 100  # records: a lag below says nothing about where it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """`text` says what is so, `advice` what helps. `at`: the partition whose next record is worth a look."""

    text: str
    advice: str = ""
    at: Position | None = None


def causes(
    group: Group, positions: Sequence[Position], members: Sequence[Any] | None, written: float | None
) -> list[Cause]:
    """The plainest first. `members` is None where it isn't known; `written`: records a second that its topics get."""
    behind = sorted((one for one in positions if one.lag), key=lambda one: -(one.lag or 0))
    found: list[Cause] = []
    lost = [one for one in positions if one.lost]
    if lost:
        text = ngettext(
            "Retention removed records of %(n)d partition that it had not read.",
            "Retention removed records of %(n)d partitions that it had not read.",
            len(lost),
        )
        advice = _("Nobody can read them any more. A longer retention keeps this from happening again.")
        found.append(Cause(text=text % {"n": len(lost)}, advice=advice))
    lag = sum(one.lag or 0 for one in behind) or group.lag or 0  # a share group's positions are not told
    if not lag or group.health == "ok":
        return found
    if members is not None and not members:
        advice = _("Start its consumers: they go on at its offsets.")
        return [*found, Cause(text=_("Nobody reads: no consumer of the group is connected."), advice=advice)]
    share = group.kind == "share"
    alone = [one for one in behind if one.member is None]
    if members and alone and not share:
        text = ngettext(
            "Nobody reads %(n)d partition with unread records.",
            "Nobody reads %(n)d partitions with unread records.",
            len(alone),
        )
        advice = _("Its members read other topics now, or the group is sharing out its partitions this moment.")
        found.append(Cause(text=text % {"n": len(alone)}, advice=advice))
    worst = behind[0] if behind else None
    if members and group.rate == 0 and (group.age or 0) >= STANDS_SECONDS:
        advice = _("A handler that hangs, or fails at the same record each time, looks like this: see the next record.")
        found.append(Cause(text=_("It has members, but they commit nothing."), advice=advice, at=worst))
    elif members and group.rate and written is not None and written >= group.rate:
        text = _("Records come faster (%(written).1f a second) than it reads (%(rate).1f a second).")
        found.append(
            Cause(
                text=text % {"written": written, "rate": group.rate},
                advice=_more(len(members), len(positions)) if positions and not share else "",
            )
        )
    if worst is not None and len(positions) > 1 and lag >= FEW and (worst.lag or 0) >= MOST * lag:
        text = _("%(n)s of %(lag)s unread records are in one partition: %(topic)s %(partition)d.")
        numbers = {"n": f"{worst.lag:,}", "lag": f"{lag:,}", "topic": worst.topic, "partition": worst.partition}
        advice = _("Its keys are written more than others, or its reader is slower.")
        found.append(Cause(text=text % numbers, advice=advice, at=worst))
    return found


def written_to(group: Group, rates: Mapping[str, float | None]) -> float | None:
    """Records a second that its topics get together; None while one of them isn't known."""
    known = [rates.get(topic) for topic in group.topics]
    return sum(rate for rate in known if rate is not None) if known and None not in known else None


def _more(members: int, partitions: int) -> str:
    if members >= partitions:
        return _("Every partition has a reader already: only more partitions or a faster handler help.")
    text = ngettext(
        "%(members)d consumer shares %(partitions)d partitions: more consumers can help.",
        "%(members)d consumers share %(partitions)d partitions: more consumers can help.",
        members,
    )
    return text % {"members": members, "partitions": partitions}
