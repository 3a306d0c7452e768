"""Our record batches against the builders and readers of kafka-python and aiokafka."""

from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AiokafkaBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch as KafkaPythonBatch
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder

from broker.wire import batch
from broker.wire.batch import Compression, Record

MOMENT = 4_000_000_000_000
CLIENTS = [
    pytest.param(KafkaPythonBuilder, KafkaPythonBatch, id="kafka-python"),
    pytest.param(AiokafkaBuilder, AiokafkaBatch, id="aiokafka"),
]
contents = st.lists(
    st.tuples(
        st.integers(0, MOMENT),
        st.none() | st.binary(max_size=30),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=3),
    ),
    min_size=1,
    max_size=10,
)


def arbitrary(items: list[Any]) -> list[Record]:
    return [Record(offset, *item) for offset, item in enumerate(items)]


@pytest.mark.parametrize("compression", list(Compression))
@pytest.mark.parametrize(("builder", "reader"), CLIENTS)
@settings(max_examples=25, deadline=None)
@given(contents.map(arbitrary))
def test_clients_and_we_read_each_others_batches(
    builder: Any, reader: Any, compression: Compression, records: list[Record]
) -> None:
    made = builder(
        magic=2,
        compression_type=int(compression),
        is_transactional=True,
        producer_id=9,
        producer_epoch=1,
        base_sequence=5,
        batch_size=1 << 20,
    )
    for record in records:
        made.append(record.offset, record.timestamp, record.key, record.value, list(record.headers))
    theirs = bytes(made.build())
    ours = batch.build(
        records,
        compression=compression,
        producer_id=9,
        producer_epoch=1,
        base_sequence=5,
        transactional=True,
    )

    (read,) = batch.validate(theirs, 1 << 20)
    assert (read.producer_id, read.producer_epoch, read.base_sequence, read.count) == (9, 1, 5, len(records))
    assert read.transactional
    assert read.max_timestamp == max(record.timestamp for record in records)
    assert [found._replace(headers=list(found.headers)) for found in batch.records(read)] == records

    back = reader(ours)
    assert back.validate_crc()
    assert [Record(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in back] == records
    if compression is Compression.NONE:
        leader_epoch = slice(12, 16)  # a producer's is never looked at, and some write 0
        assert [ours[: leader_epoch.start], ours[leader_epoch.stop :]] == [
            theirs[: leader_epoch.start],
            theirs[leader_epoch.stop :],
        ]
