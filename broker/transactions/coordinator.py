"""The transaction coordinator: who may write under a transactional id, and how a transaction ends everywhere at once.

Theory of operation
-------------------
EMPTY ─add─▶ ONGOING ─end─▶ PREPARE_x ─markers, offsets─▶ COMPLETE_x ─add─▶ ONGOING …

Ending appends, in this order and in one step: the PREPARE record, a marker to each partition, the settled offsets
of each group, the COMPLETE record. All logs share one journal, which after a crash keeps a prefix of what was
appended. So a restart finds either no PREPARE (the transaction is still open and will time out or go on), or a
PREPARE with some of what follows it, which `resume` does again from the start: a second marker and a second settling
change nothing. Nobody is told the outcome before all of it is durable.

Invariants
* A transactional id has one current (producer id, epoch); any other is fenced.
* Data of a transaction reaches a partition only after the partition was added to it, so no transaction can hang:
  Produce asks `check_produce` first, and what that writes lies before the data in the journal.
* A transaction that is not ended in time is aborted under a bumped epoch, which fences its producer.
* Since version 2 (KIP-890) each end bumps the epoch too, so that a late batch of one transaction can't enter the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from broker.groups.deadlines import Deadlines
from broker.groups.ports import StateLog, StateUnwritable
from broker.transactions.state import (
    ENDED,
    LAST_EPOCH,
    NO_EPOCH,
    NO_PRODUCER,
    PREPARED,
    Transaction,
    TransactionState,
    read_id,
    read_transaction,
)
from broker.wire.errors import ErrorCode

Place = tuple[str, int]


class Outcomes(Protocol):
    """Where the end of a transaction is written; both may be asked twice for the same end."""

    def mark(self, place: Place, producer_id: int, epoch: int, *, commit: bool, now: int) -> None:
        """Append a marker to the partition; a partition that is gone is passed over."""

    def settle(self, group_id: str, producer_id: int, *, commit: bool, now: int) -> None:
        """Apply or drop the offsets staged for the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionSettings:
    """Limits, in milliseconds."""

    max_timeout_ms: int = 900_000
    id_expiration_ms: int = 7 * 24 * 3600 * 1000
    retry_ms: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Init:
    """InitProducerId with a transactional id; a producer that has one before names it (KIP-360)."""

    transactional_id: str
    timeout_ms: int
    producer_id: int = NO_PRODUCER
    epoch: int = NO_EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """An answer that names the producer to go on as."""

    error: ErrorCode = ErrorCode.NONE
    producer_id: int = NO_PRODUCER
    epoch: int = NO_EPOCH


class ProducerIdNeeded(Exception):
    """The step needs a producer id never used before; call again with one."""


class TransactionCoordinator:
    """All transactional ids of this broker."""

    def __init__(self, *, log: StateLog, outcomes: Outcomes, settings: TransactionSettings | None = None) -> None:
        self._log = log
        self._outcomes = outcomes
        self._settings = settings or TransactionSettings()
        self._transactions: dict[str, Transaction] = {}
        self._deadlines: Deadlines[tuple[str, ...]] = Deadlines()

    # -- start and time ---------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None) -> None:
        """Take one state record back in, in log order."""
        if value is None:
            self._transactions.pop(read_id(key), None)
        else:
            transaction = read_transaction(key, value)
            self._transactions[transaction.id] = transaction

    def resume(self, now: int) -> None:
        """Replay is over: finish what was prepared, and watch what is open."""
        for transaction in list(self._transactions.values()):
            self._watch(transaction)
            if transaction.state in PREPARED:
                self._try_finish(transaction.id, now)

    def next_deadline(self) -> int | None:
        """When `tick` has something to do."""
        return self._deadlines.next()

    def tick(self, now: int) -> None:
        """Abort what ran out of time, finish what could not be finished, forget what nobody used."""
        for transactional_id, _ in self._deadlines.due(now):
            transaction = self._transactions.get(transactional_id)
            if transaction is None:
                continue
            try:
                if transaction.state is TransactionState.ONGOING:
                    self._finish(self._prepare(self._fenced(transaction), commit=False, now=now), now)
                elif transaction.state in PREPARED:
                    self._finish(transaction, now)
                else:
                    self._log.append([transaction.tombstone()], now)
                    del self._transactions[transactional_id]
            except StateUnwritable:
                self._deadlines.set((transactional_id, ""), now + self._settings.retry_ms)

    def _watch(self, transaction: Transaction) -> None:
        if transaction.state is TransactionState.ONGOING:
            at = transaction.started_at + transaction.timeout_ms
        elif transaction.state in PREPARED:
            at = transaction.changed_at + self._settings.retry_ms
        else:
            at = transaction.changed_at + self._settings.id_expiration_ms
        self._deadlines.set((transaction.id, ""), at)

    def abandon(self) -> None:
        """Nothing is parked here; this coordinator will not be asked again."""

    # -- producers --------------------------------------------------------------------------------------------------

    def init(self, call: Init, fresh_id: int | None, now: int) -> Producer:
        """InitProducerId: the producer to write as; raises ProducerIdNeeded when `fresh_id` is missing but needed."""
        if not call.transactional_id or (call.producer_id == NO_PRODUCER) != (call.epoch == NO_EPOCH):
            return Producer(error=ErrorCode.INVALID_REQUEST)
        if not 0 < call.timeout_ms <= self._settings.max_timeout_ms:
            return Producer(error=ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        transaction = self._transactions.get(call.transactional_id)
        if transaction is None:
            producer_id = _needed(fresh_id)
            transaction = Transaction(id=call.transactional_id, producer_id=producer_id, epoch=0)
            return self._adopt(replace(transaction, timeout_ms=call.timeout_ms), now)
        expected: int | None = None
        if call.producer_id != NO_PRODUCER:
            if call.producer_id not in (transaction.producer_id, transaction.last_producer_id):
                return Producer(error=ErrorCode.PRODUCER_FENCED)
            rotated = call.producer_id != transaction.producer_id
            if rotated and transaction.last_epoch == call.epoch:
                return self._repeat(transaction, call, now)
            if rotated or call.epoch not in (transaction.epoch, transaction.last_epoch):
                return Producer(error=ErrorCode.PRODUCER_FENCED)
            expected = call.epoch
        if transaction.state in PREPARED:
            return Producer(error=ErrorCode.CONCURRENT_TRANSACTIONS)
        if transaction.state is TransactionState.ONGOING:
            if expected not in (None, transaction.epoch):
                return Producer(error=ErrorCode.PRODUCER_FENCED)
            transaction = self._finish(self._prepare(self._fenced(transaction), commit=False, now=now), now)
            expected = None
        elif expected is not None and expected != transaction.epoch:
            return self._repeat(transaction, call, now)
        bumped = replace(_bumped(transaction, fresh_id), timeout_ms=call.timeout_ms)
        # Only a producer that said who it was may repeat the call under its old epoch.
        return self._adopt(bumped if expected is not None else replace(bumped, last_epoch=NO_EPOCH), now)

    def _repeat(self, transaction: Transaction, call: Init, now: int) -> Producer:
        """KIP-360: the same call once more; its first answer got lost."""
        if transaction.state not in ENDED:
            return Producer(error=ErrorCode.CONCURRENT_TRANSACTIONS)
        return self._adopt(replace(transaction, timeout_ms=call.timeout_ms), now)

    def _adopt(self, transaction: Transaction, now: int) -> Producer:
        self._write(replace(transaction, state=TransactionState.EMPTY), now)
        return Producer(producer_id=transaction.producer_id, epoch=transaction.epoch)

    # -- what belongs to a transaction --------------------------------------------------------------------------------

    def add(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        partitions: Iterable[Place] = (),
        groups: Iterable[str] = (),
        now: int,
    ) -> ErrorCode:
        """AddPartitionsToTxn, AddOffsetsToTxn: open the transaction if need be and let these take part."""
        transaction = self._current(transactional_id, producer_id, epoch)
        if isinstance(transaction, ErrorCode):
            return transaction
        if transaction.state in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        fresh = transaction.state is not TransactionState.ONGOING
        partitions, groups = list(partitions), list(groups)
        if not fresh and transaction.partitions.issuperset(partitions) and transaction.groups.issuperset(groups):
            return ErrorCode.NONE
        all_partitions = (frozenset() if fresh else transaction.partitions).union(partitions)
        all_groups = (frozenset() if fresh else transaction.groups).union(groups)
        self._write(
            replace(
                transaction,
                state=TransactionState.ONGOING,
                partitions=all_partitions,
                groups=all_groups,
                started_at=now if fresh else transaction.started_at,
            ),
            now,
        )
        return ErrorCode.NONE

    def check_produce(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        places: Collection[Place],
        *,
        implicit: bool,
        now: int,
    ) -> ErrorCode:
        """Whether a transactional batch may enter those partitions; `implicit` (Produce 12 and up) adds them."""
        if implicit:
            error = self.add(transactional_id, producer_id, epoch, partitions=places, now=now)
        else:
            error = self.verify(transactional_id, producer_id, epoch, partitions=places)
        return ErrorCode.INVALID_PRODUCER_EPOCH if error is ErrorCode.PRODUCER_FENCED else error

    def verify(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        partitions: Iterable[Place] = (),
        groups: Iterable[str] = (),
    ) -> ErrorCode:
        """Whether all of these take part in the open transaction."""
        transaction = self._current(transactional_id, producer_id, epoch)
        if isinstance(transaction, ErrorCode):
            return transaction
        if transaction.state in PREPARED:
            return ErrorCode.CONCURRENT_TRANSACTIONS
        if transaction.state is not TransactionState.ONGOING:
            return ErrorCode.INVALID_TXN_STATE
        if not transaction.partitions.issuperset(partitions) or not transaction.groups.issuperset(groups):
            return ErrorCode.INVALID_TXN_STATE
        return ErrorCode.NONE

    def _current(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction | ErrorCode:
        if not transactional_id:
            return ErrorCode.INVALID_REQUEST
        transaction = self._transactions.get(transactional_id)
        if transaction is None or transaction.producer_id != producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if transaction.epoch != epoch:
            return ErrorCode.PRODUCER_FENCED
        return transaction

    # -- the end ------------------------------------------------------------------------------------------------------

    def end(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        commit: bool,
        bump: bool,
        fresh_id: int | None,
        now: int,
    ) -> Producer:
        """EndTxn; with `bump` (version 5, KIP-890) the answer names the producer of the next transaction."""
        if not transactional_id:
            return Producer(error=ErrorCode.INVALID_REQUEST)
        transaction = self._transactions.get(transactional_id)
        if transaction is None:
            return Producer(error=ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        if bump and self._is_repeat(transaction, producer_id, epoch):
            wanted = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
            if transaction.state in PREPARED:
                return Producer(error=ErrorCode.CONCURRENT_TRANSACTIONS)
            if transaction.state is wanted:
                return Producer(producer_id=transaction.producer_id, epoch=transaction.epoch)
            return Producer(error=ErrorCode.PRODUCER_FENCED)
        current = self._current(transactional_id, producer_id, epoch)
        if isinstance(current, ErrorCode):
            return Producer(error=current)
        error = _may_end(current, commit=commit, bump=bump)
        if error is not None:
            return Producer(error=error, producer_id=producer_id, epoch=epoch)
        if bump:
            current = _ending_bump(current, fresh_id)
        ended = self._finish(self._prepare(current, commit=commit, now=now), now)
        return Producer(producer_id=ended.producer_id, epoch=ended.epoch)

    @staticmethod
    def _is_repeat(transaction: Transaction, producer_id: int, epoch: int) -> bool:
        """Whether a producer of version 2 ends again what it has ended: its epoch is the one before the bump."""
        if transaction.state in (TransactionState.EMPTY, TransactionState.ONGOING):
            return False
        if producer_id == transaction.producer_id:
            return epoch == transaction.last_epoch and epoch == transaction.epoch - 1
        return producer_id == transaction.last_producer_id and epoch == transaction.last_epoch

    def _fenced(self, transaction: Transaction) -> Transaction:
        """The transaction under an epoch its producer does not have."""
        return replace(transaction, epoch=min(transaction.epoch + 1, LAST_EPOCH + 1), last_epoch=NO_EPOCH)

    def _prepare(self, transaction: Transaction, *, commit: bool, now: int) -> Transaction:
        """Decide. From here on the transaction ends that way, whatever happens."""
        state = TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT
        return self._write(replace(transaction, state=state), now)

    def _finish(self, transaction: Transaction, now: int) -> Transaction:
        """Tell everybody who takes part, then complete."""
        commit = transaction.state is TransactionState.PREPARE_COMMIT
        for place in sorted(transaction.partitions):
            self._outcomes.mark(place, transaction.producer_id, transaction.epoch, commit=commit, now=now)
        for group in sorted(transaction.groups):
            self._outcomes.settle(group, transaction.producer_id, commit=commit, now=now)
        ended = replace(
            transaction,
            state=TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT,
            partitions=frozenset(),
            groups=frozenset(),
            started_at=-1,
        )
        if transaction.next_producer_id != NO_PRODUCER:
            ended = replace(
                ended,
                producer_id=transaction.next_producer_id,
                epoch=0,
                last_producer_id=transaction.producer_id,
                next_producer_id=NO_PRODUCER,
            )
        return self._write(ended, now)

    def _try_finish(self, transactional_id: str, now: int) -> None:
        try:
            self._finish(self._transactions[transactional_id], now)
        except StateUnwritable:
            self._deadlines.set((transactional_id, ""), now + self._settings.retry_ms)

    def _write(self, transaction: Transaction, now: int) -> Transaction:
        transaction = replace(transaction, changed_at=now)
        self._log.append([transaction.record()], now)
        self._transactions[transaction.id] = transaction
        self._watch(transaction)
        return transaction

    # -- queries ------------------------------------------------------------------------------------------------------

    def transaction(self, transactional_id: str) -> Transaction | None:
        """What is known of the id."""
        return self._transactions.get(transactional_id)

    def transactions(self) -> Sequence[Transaction]:
        """Every transactional id."""
        return list(self._transactions.values())


def _needed(fresh_id: int | None) -> int:
    if fresh_id is None:
        raise ProducerIdNeeded
    return fresh_id


def _bumped(transaction: Transaction, fresh_id: int | None) -> Transaction:
    """The next epoch, or the first of a fresh producer id when they have run out."""
    if transaction.epoch >= LAST_EPOCH:
        return replace(
            transaction,
            producer_id=_needed(fresh_id),
            epoch=0,
            last_producer_id=transaction.producer_id,
            last_epoch=transaction.epoch,
        )
    return replace(transaction, epoch=transaction.epoch + 1, last_epoch=transaction.epoch)


def _ending_bump(transaction: Transaction, fresh_id: int | None) -> Transaction:
    """KIP-890: markers carry the bumped epoch of the same producer id; a fresh id follows when that was the last."""
    bumped = replace(transaction, epoch=transaction.epoch + 1, last_epoch=transaction.epoch)
    return bumped if bumped.epoch <= LAST_EPOCH else replace(bumped, next_producer_id=_needed(fresh_id))


def _may_end(transaction: Transaction, *, commit: bool, bump: bool) -> ErrorCode | None:
    """Why a transaction can't be ended that way; None when it can be; NONE when it has been."""
    state = transaction.state
    if state is TransactionState.ONGOING:
        return None
    if state in PREPARED:
        same = (state is TransactionState.PREPARE_COMMIT) == commit
        return ErrorCode.CONCURRENT_TRANSACTIONS if same else ErrorCode.INVALID_TXN_STATE
    if bump:
        # A producer of version 2 can't know whether anything was added: aborting nothing is fine, committing is not.
        return ErrorCode.INVALID_TXN_STATE if commit else None
    wanted = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
    return ErrorCode.NONE if state is wanted else ErrorCode.INVALID_TXN_STATE
