"""`python -m broker.log.dump`: look into the journal, the checkpoint, or check a whole data folder at rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from broker.log import batches, checkpoint
from broker.log.failures import LogError
from broker.log.files import RealFiles
from broker.log.journal import ROLL_FIRST, Frame, Kind, parse_file_header, scan, sequence_of
from broker.log.verify import verify


def journal(path: Path) -> Iterator[str]:
    """A journal file, line by line. Raises UnknownFormat."""
    data = path.read_bytes()
    number = sequence_of(path.name)
    header = parse_file_header(data)
    sequence = header[0] if header is not None else number
    if sequence is None:
        yield f"{path}: no journal file"
        return
    found = scan(data, sequence)
    if header is None:
        yield f"{path}: the header is damaged; {len(found.later)} frames found behind it"
    else:
        yield f"{path}: format 1, sequence {header[0]}, base {header[1]}, {len(found.frames)} frames"
    for frame in found.frames:
        yield from _frame(frame)
    if found.torn:
        yield f"position {found.end}: a frame was begun and is not whole ({found.torn} bytes)"
    if found.later:
        yield f"position {found.end}: damaged; frames found behind it:"
        for frame in found.later:
            yield from _frame(frame)


def _frame(frame: Frame) -> Iterator[str]:
    yield f"position {frame.position} to {frame.end}: {frame.entries} entries, durable up to {frame.durable}"
    for entry in frame.parse():
        name = Kind(entry.kind).name.lower() if entry.kind in set(Kind) else f"kind {entry.kind}"
        about = f"  {name} {entry.topic_id.hex()}-{entry.partition} base {entry.base_offset}"
        if entry.flags & ROLL_FIRST:
            about += " rolls"
        if entry.kind == Kind.RECORDS:
            infos = list(batches.walk(entry.data))
            count = sum(info.records for info in infos)
            about += f" to {infos[-1].last_offset}: {count} records in {len(infos)} batches, {len(entry.data)} bytes"
            if not all(batches.intact(entry.data, info) for info in infos):
                about += " CRC FAILS"
        elif entry.kind == Kind.CREATE:
            about += f" {bytes(entry.data).decode()}"
        elif entry.kind == Kind.EPOCH:
            about += f" epoch {int.from_bytes(entry.data, 'big')}"
        yield about


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when something is damaged."""
    parser = argparse.ArgumentParser(prog="python -m broker.log.dump", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("journal", help="frames and entries of journal files").add_argument(
        "file", nargs="+", type=Path
    )
    commands.add_parser("checkpoint", help="the checkpoint as JSON").add_argument("folder", type=Path)
    commands.add_parser("verify", help="check every byte of a store at rest").add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "journal":
            for path in options.file:
                for line in journal(path):
                    sys.stdout.write(line + "\n")
            return 0
        if options.command == "checkpoint":
            state = checkpoint.parse((options.folder / checkpoint.NAME).read_bytes())
            sys.stdout.write(json.dumps(state, indent=2) + "\n")
            return 0
        wrongs = 0
        for line in verify(RealFiles(), str(options.folder)):
            sys.stdout.write(line + "\n")
            wrongs += 1
        sys.stdout.write("nothing is damaged\n" if not wrongs else f"{wrongs} damaged\n")
    except (LogError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
