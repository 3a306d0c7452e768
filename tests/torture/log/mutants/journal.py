"""From an append through the journal to its segment, and back by replay."""

from __future__ import annotations

from typing import Any

from broker.log import journal as journals
from broker.log import producers, recovery
from broker.log.index import TransactionIndex
from broker.log.journal import FRAME_HEADER, Frame, Journal, Kind
from broker.log.partition import Partition
from broker.log.segment import Segment
from broker.log.store import Group
from tests.torture.log.mutants.registry import Patch, mutant, without


@mutant
def acknowledge_before_the_fsync(patch: Patch) -> None:
    def sync(self: Journal) -> None:
        self.durable = self.position

    patch.setattr(Journal, "sync", sync)


@mutant
def drop_a_batch_on_its_way_to_the_segment(patch: Patch) -> None:
    append = Segment.append

    def lossy(self: Segment, data: bytes, base: int, infos: Any, interval: int) -> None:
        if base % 11 != 5:
            append(self, data, base, infos, interval)

    patch.setattr(Segment, "append", lossy)


@mutant
def drop_an_entry_on_its_way_to_the_journal(patch: Patch) -> None:
    write = Group.write

    def lossy(self: Group) -> None:
        whole = self.staged
        self.staged = [staged for staged in whole if staged.position % 13 or staged.kind != Kind.RECORDS] or whole
        write(self)
        self.staged = whole

    patch.setattr(Group, "write", lossy)


@mutant
def append_a_repeated_batch_again(patch: Patch) -> None:
    patch.setattr(producers, "repeated", lambda *args: None)
    patch.setattr(producers, "_check", lambda *args: None)


@mutant
def swap_the_order_in_a_group(patch: Patch) -> None:
    write = Group.write

    def swapped(self: Group) -> None:
        whole = self.staged
        self.staged = whole[::-1]
        write(self)
        self.staged = whole

    patch.setattr(Group, "write", swapped)


@mutant
def give_an_offset_twice(patch: Patch) -> None:
    append = Partition.append

    def twice(self: Partition, batches: Any, now: int, **kwargs: Any) -> Any:
        if self.log_end_offset > 20 and now % 7 == 0:
            self.log_end_offset -= 1
        return append(self, batches, now, **kwargs)

    patch.setattr(Partition, "append", twice)


@mutant
def move_the_high_watermark_before_it_is_durable(patch: Patch) -> None:
    stage = Partition._stage_records

    def early(self: Partition, *args: Any, **kwargs: Any) -> int:
        position = stage(self, *args, **kwargs)
        self.high_watermark = self.log_end_offset
        return position

    patch.setattr(Partition, "_stage_records", early)


@mutant
def let_read_committed_see_open_transactions(patch: Patch) -> None:
    def high(self: Partition) -> None:
        self.last_stable_offset = self.high_watermark

    patch.setattr(Partition, "settle_stable", high)


@mutant
def skip_the_replay_of_the_journal(patch: Patch) -> None:
    patch.setattr(recovery._Recovery, "_replay", lambda self, found: None)


@mutant
def replay_no_deletion(patch: Patch) -> None:
    patch.setattr(recovery._Recovery, "_delete", lambda self, key, partition: None)


@mutant
def replay_no_move_of_the_start(patch: Patch) -> None:
    replay = Partition.replay

    def deaf(self: Partition, staged: Any) -> None:
        if staged.kind != Kind.START:
            replay(self, staged)

    patch.setattr(Partition, "replay", deaf)


@mutant
def forget_the_producers_at_a_restart(patch: Patch) -> None:
    resume = Partition.resume
    patch.setattr(Partition, "resume", lambda self, states: resume(self, {}))


@mutant
def remember_one_batch_of_a_producer(patch: Patch) -> None:
    patch.setattr(producers, "REMEMBERED", 1)
    follow = producers.follow

    def short(state: Any, **kwargs: Any) -> Any:
        return follow(state, **kwargs)._replace(sent=follow(state, **kwargs).sent[-1:])

    patch.setattr(producers, "follow", short)


@mutant
def forget_aborted_transactions(patch: Patch) -> None:
    patch.setattr(TransactionIndex, "append", lambda self, entry: None)


@mutant
def lose_the_transaction_index_at_a_checkpoint(patch: Patch) -> None:
    patch.setattr(TransactionIndex, "dump", lambda self, start=0: b"")


@mutant
def keep_what_lies_beyond_the_checkpoint(patch: Patch) -> None:
    def keep(self: Any, partition: Partition, base: int, size: int, tails: Any) -> int:
        return int(self._files.size_of(f"{partition.path}/{base:020d}.log"))

    patch.setattr(recovery._Recovery, "_trim", keep)


@mutant
def believe_a_torn_frame(patch: Patch) -> None:
    def gullible(data: Any, at: int, base: int, sequence: int, salt: int | None) -> Frame | None:
        if len(data) - at < FRAME_HEADER.size:
            return None
        magic, _, size, entries, seq, position, durable, _ = FRAME_HEADER.unpack_from(data, at)
        end = at + FRAME_HEADER.size + size
        if magic != journals.FRAME_MAGIC or seq != sequence or position != base + at or end > len(data):
            return None
        return Frame(position, base + end, durable, entries, memoryview(data)[at + FRAME_HEADER.size : end])

    patch.setattr(journals, "parse_frame", gullible)


@mutant
def believe_frames_of_a_recycled_file(patch: Patch) -> None:
    def gullible(data: Any, at: int, base: int, sequence: int, salt: int | None) -> Frame | None:
        if len(data) - at < FRAME_HEADER.size:
            return None
        magic, _, size, entries, _, _, durable, _ = FRAME_HEADER.unpack_from(data, at)
        end = at + FRAME_HEADER.size + size
        if magic != journals.FRAME_MAGIC or end > len(data):
            return None
        return Frame(base + at, base + end, durable, entries, memoryview(data)[at + FRAME_HEADER.size : end])

    patch.setattr(journals, "parse_frame", gullible)


@mutant
def write_a_group_in_two_frames(patch: Patch) -> None:
    write = Journal.write

    def split(self: Journal, buffers: Any, entries: int) -> None:
        if entries < 2:
            write(self, buffers, entries)
            return
        first = 2 if len(buffers) > 1 and len(buffers[1]) != len(buffers[0]) else 1
        write(self, buffers[:first], 1)
        write(self, buffers[first:], entries - 1)

    patch.setattr(Journal, "write", split)


@mutant
def forget_to_sync_the_folder_of_a_new_journal_file(patch: Patch) -> None:
    without(patch, Journal, "_rotate", "sync_folder", "")
