"""Pure: what a run of records of `sluice.delay` changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from broker.client.delaying import Cancellation, Delivery, Refused, asked
from broker.client.records import Record
from broker.delay.entry import Entry, Position

TOO_LATE = "nothing is pending with this key and id: it was delivered, cancelled before, refused, or never asked for"


@dataclass(slots=True)
class Intake:
    """`put` becomes pending and `removed` is no longer; `letters` are records that make no sense and why; `cancelled`
    says how many deliveries each cancellation (by its offset) took back."""

    position: Position
    put: dict[int, Entry] = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)
    letters: list[tuple[Record, Refused]] = field(default_factory=list)
    cancelled: dict[int, int] = field(default_factory=dict)


def take_in(
    records: Iterable[Record],
    position: Position,
    *,
    matching: Callable[[bytes | None, str], list[int]],
    holds: Callable[[int], bool],
    refusal: Callable[[str], Refused | None],
) -> Intake:
    """`records` follow each other from `position` on. `matching` and `holds` ask what was pending before the run;
    `refusal` says why a target must not be written to."""
    intake = Intake(position)
    offset = position.next
    for record in records:
        offset = record.offset + 1
        wanted = asked(record)
        if isinstance(wanted, Delivery):
            wanted = refusal(wanted.target) or wanted
        if isinstance(wanted, Delivery):
            intake.put[position.row(record.offset)] = Entry(
                due=wanted.due,
                timestamp=record.timestamp,
                target=wanted.target,
                id=wanted.id,
                key=record.key,
                value=record.value,
                headers=wanted.headers,
            )
        elif isinstance(wanted, Cancellation):
            rows = _pending(intake, record, wanted, matching, holds)
            for row in rows:
                if intake.put.pop(row, None) is None:
                    intake.removed.append(row)
            intake.cancelled[record.offset] = len(rows)
            if not rows:
                intake.letters.append((record, Refused(reason="cancel", detail=TOO_LATE)))
        else:
            intake.letters.append((record, wanted))
    intake.position = Position(next=offset, topic=position.topic, generation=position.generation)
    return intake


def _pending(
    intake: Intake,
    record: Record,
    wanted: Cancellation,
    matching: Callable[[bytes | None, str], list[int]],
    holds: Callable[[int], bool],
) -> list[int]:
    """The rows that a cancellation is about, as things stand at its place in the run."""
    if wanted.row is not None:
        rows = [wanted.row] if wanted.row in intake.put or holds(wanted.row) else []
    else:
        assert wanted.id is not None
        rows = matching(record.key, wanted.id)
        rows += [row for row, entry in intake.put.items() if entry.id == wanted.id and entry.key == record.key]
    gone = set(intake.removed)
    return [row for row in rows if row not in gone]
