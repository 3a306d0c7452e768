"""The job that sends many dead letters again: each once, whatever dies meanwhile.

A batch's records and the place it reaches are written in one Kafka transaction: the place is committed as the offset of
a group of the job's own (`__sluice_redrive.<job>`). A worker that takes the job over fences the old one by the
transactional id, reads the committed places, marks what lies before them as sent, and goes on after them. The rows of
the index follow the log; they never lead it.
"""

import time
from collections.abc import Iterator, Sequence

from django.db.models import Q, QuerySet
from django.utils import timezone

from console import jobs, kafka
from console.accounts.permissions import Permission
from console.deadletters.models import Letter
from console.deadletters.queries import KIND
from console.deadletters.redrive import NoTarget, Outgoing, again

BATCH = 500
READ_SECONDS = 10.0


class NotReadable(Exception):
    """The broker did not give the letters' records in time; the job goes on where it was when it is run again."""


class NotWritten(Exception):
    """A record of a batch was refused; the batch's transaction is aborted and nothing of it was sent."""


@jobs.runner(KIND, Permission.DEADLETTER_REDRIVE)
def run(lease: jobs.Lease) -> None:
    """Partition by partition, in offset order."""
    group = f"__sluice_redrive.{lease.job_id}"
    source = kafka.consumer(group, reset="error")
    sink = kafka.transactional_producer(f"__sluice_redrive.{lease.job_id}")
    try:
        sink.init_transactions()
        catch_up(lease, source)
        started, sent = time.monotonic(), 0
        for letters in batches(lease):
            send_batch(lease, source, sink, letters)
            sent += len(letters)
            if lease.params["per_second"]:
                pause(lease, started + sent / lease.params["per_second"] - time.monotonic())
    finally:
        sink.close()
        source.close()
    kafka.admin().delete_groups([group])


def selection(lease: jobs.Lease) -> QuerySet[Letter]:
    """The letters this job holds that are still open."""
    return Letter.objects.filter(job=lease.job_id, state=Letter.State.OPEN).order_by("partition", "offset")


def batches(lease: jobs.Lease) -> Iterator[Sequence[Letter]]:
    """Runs of at most BATCH letters of one partition, each letter once (one that can't be sent stays open)."""
    after = Q()
    while found := list(selection(lease).filter(after)[:BATCH]):
        letters = [letter for letter in found if letter.partition == found[0].partition]
        yield letters
        last = letters[-1]
        after = Q(partition__gt=last.partition) | Q(partition=last.partition, offset__gt=last.offset)


def catch_up(lease: jobs.Lease, source: kafka.Consumer) -> None:
    """Mark what an earlier runner of this job had committed to the log but not yet to the index."""
    partitions = selection(lease).order_by().values_list("partition", flat=True).distinct()
    places = [kafka.TopicPartition(lease.params["topic"], partition) for partition in partitions]
    if not places:
        return
    for place, reached in source.committed(places).items():
        done = selection(lease).filter(partition=place.partition, offset__lt=reached)
        settle(lease, list(done), gone=(), kept=())


def send_batch(lease: jobs.Lease, source: kafka.Consumer, sink: kafka.Producer, letters: Sequence[Letter]) -> None:
    """Read the letters' records, write them and the place after them in one transaction, then mark the rows."""
    found = read(source, letters)
    outgoing, kept = planned(lease, letters, found)
    place = kafka.TopicPartition(letters[0].topic, letters[0].partition)
    sink.begin()
    try:
        failures = sink.send_many([(one.topic, one.value, one.key, list(one.headers)) for one in outgoing])
        if failures:
            raise NotWritten(f"{failures[0].topic}: {failures[0].error}")
        sink.send_offsets({place: letters[-1].offset + 1}, source.group_metadata())
        sink.commit()
    except Exception:
        if sink.fatal is None:
            sink.abort()
        raise
    settle(lease, letters, gone=[one for one in letters if one.offset not in found], kept=kept)


def planned(
    lease: jobs.Lease, letters: Sequence[Letter], found: dict[int, kafka.Record]
) -> tuple[list[Outgoing], list[Letter]]:
    """The records to write, and the letters that don't say where they came from."""
    outgoing, kept = [], []
    for letter in letters:
        if letter.offset not in found:
            continue
        try:
            record = found[letter.offset]
            outgoing.append(again(record, job=str(lease.job_id), target=lease.params["target"] or None))
        except NoTarget:
            kept.append(letter)
    return outgoing, kept


def read(source: kafka.Consumer, letters: Sequence[Letter]) -> dict[int, kafka.Record]:
    """The letters' records by offset. One that retention has removed meanwhile is missing."""
    wanted = {letter.offset for letter in letters}
    first, last = letters[0], letters[-1]
    place = kafka.TopicPartition(first.topic, first.partition)
    start = kafka.admin().offsets([place], kafka.types.At.EARLIEST)[place].offset
    end = kafka.admin().offsets([place], kafka.types.At.LATEST)[place].offset
    found: dict[int, kafka.Record] = {}
    position, stop = max(first.offset, start), min(last.offset + 1, end)
    if position >= stop:
        return found
    source.assign({place: position})
    deadline = time.monotonic() + READ_SECONDS
    while position < stop:
        records = source.poll(BATCH, 0.5)
        for record in records:
            position = record.offset + 1
            if record.offset in wanted:
                found[record.offset] = record
        if records:
            deadline = time.monotonic() + READ_SECONDS
        elif time.monotonic() > deadline:
            raise NotReadable(f"{place.topic}/{place.partition} at {position} was not read within {READ_SECONDS:g} s")
    return found


def settle(lease: jobs.Lease, letters: Sequence[Letter], *, gone: Sequence[Letter], kept: Sequence[Letter]) -> None:
    """Mark the rows and count them; `kept` letters stay open."""
    now = timezone.now()
    not_sent = {letter.pk for letter in (*gone, *kept)}
    sent = [letter.pk for letter in letters if letter.pk not in not_sent]
    rows = Letter.objects.filter(job=lease.job_id, state=Letter.State.OPEN)
    rows.filter(pk__in=[letter.pk for letter in gone]).update(state=Letter.State.GONE, resolved_at=now)
    rows.filter(pk__in=sent).update(state=Letter.State.REDRIVEN, resolved_at=now, resolved_by=lease.actor_name)
    if letters:
        lease.save(done=lease.done + len(sent), failed=lease.failed + len(not_sent))


def pause(lease: jobs.Lease, seconds: float) -> None:
    """Keep to the rate, renewing the lease and hearing of a cancel meanwhile."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 1.0))
        lease.save()
