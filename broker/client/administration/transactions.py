"""The admin's calls for transactions: list, describe, who writes to a partition, end one that hangs (KIP-664)."""

from collections.abc import Iterable

from broker.client.administration.link import CoordinatorKind, Link
from broker.client.administration.offsets import by_topic
from broker.client.administration.types import ActiveProducer, Transaction
from broker.client.errors import UnknownTopic, from_code
from broker.client.records import TopicPartition
from broker.wire import codec

WRITE_TXN_MARKERS, DESCRIBE_PRODUCERS, DESCRIBE_TRANSACTIONS, LIST_TRANSACTIONS = 27, 61, 65, 66
TRANSACTIONAL_ID_NOT_FOUND = 105


async def listing(link: Link) -> tuple[Transaction, ...]:
    return await link.retried(lambda _: _listing(link))


async def _listing(link: Link) -> tuple[Transaction, ...]:
    found = []
    for broker in list(await link.brokers()):
        answer = await link.ask(LIST_TRANSACTIONS, codec.struct("ListTransactionsRequest")(), broker)
        if answer.error_code:
            raise from_code(answer.error_code)
        found += [
            Transaction(
                id=each.transactional_id, state=each.transaction_state, producer_id=each.producer_id, coordinator=broker
            )
            for each in answer.transaction_states
        ]
    return tuple(sorted(found, key=lambda transaction: transaction.id))


async def describe(link: Link, ids: Iterable[str]) -> dict[str, Transaction]:
    wanted = list(ids)
    return await link.retried(lambda _: _describe(link, wanted))


async def _describe(link: Link, ids: list[str]) -> dict[str, Transaction]:
    found = {}
    for broker, mine in (await link.coordinators(ids, CoordinatorKind.TRANSACTION)).items():
        request = codec.struct("DescribeTransactionsRequest")(transactional_ids=mine)
        for each in (await link.ask(DESCRIBE_TRANSACTIONS, request, broker)).transaction_states:
            if each.error_code == TRANSACTIONAL_ID_NOT_FOUND:
                continue
            if each.error_code:
                raise from_code(each.error_code)
            found[each.transactional_id] = Transaction(
                id=each.transactional_id,
                state=each.transaction_state,
                producer_id=each.producer_id,
                producer_epoch=each.producer_epoch,
                timeout_ms=each.transaction_timeout_ms,
                started=each.transaction_start_time_ms,
                coordinator=broker,
                partitions=tuple(TopicPartition(t.topic, i) for t in each.topics for i in t.partitions),
            )
    return found


async def producers(
    link: Link, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[ActiveProducer, ...]]:
    make = codec.struct("DescribeProducersRequest.TopicRequest")
    found = {}
    for broker, mine in (await link.leaders(partitions)).items():
        if broker < 0:
            continue
        topics = [make(name=name, partition_indexes=indexes) for name, indexes in by_topic(mine)]
        answer = await link.ask(DESCRIBE_PRODUCERS, codec.struct("DescribeProducersRequest")(topics=topics), broker)
        for topic in answer.topics:
            for part in topic.partitions:
                if part.error_code:
                    error = from_code(part.error_code, part.error_message)
                    if isinstance(error, UnknownTopic):
                        continue
                    raise error
                found[TopicPartition(topic.name, part.partition_index)] = tuple(
                    ActiveProducer(
                        producer_id=each.producer_id,
                        producer_epoch=each.producer_epoch,
                        last_sequence=each.last_sequence,
                        last_timestamp=each.last_timestamp,
                        coordinator_epoch=each.coordinator_epoch,
                        transaction_start=each.current_txn_start_offset,
                    )
                    for each in part.active_producers
                )
    return found


async def abort(link: Link, partition: TopicPartition, producer: ActiveProducer) -> None:
    topic = codec.struct("WriteTxnMarkersRequest.WritableTxnMarkerTopic")
    marker = codec.struct("WriteTxnMarkersRequest.WritableTxnMarker")(
        producer_id=producer.producer_id,
        producer_epoch=producer.producer_epoch,
        transaction_result=False,
        topics=[topic(name=partition.topic, partition_indexes=[partition.partition])],
        coordinator_epoch=max(0, producer.coordinator_epoch),
    )
    request = codec.struct("WriteTxnMarkersRequest")(markers=[marker])
    broker = next(iter(await link.leaders([partition])))
    if broker < 0:
        raise UnknownTopic(3, "UNKNOWN_TOPIC_OR_PARTITION", str(partition))
    for each in (await link.ask(WRITE_TXN_MARKERS, request, broker, reads=False)).markers:
        for result in each.topics:
            for part in result.partitions:
                if part.error_code:
                    raise from_code(part.error_code)
