"""What is sealed reads back as it was handed over."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client.outgoing import Sending
from broker.client.writing.batches import Batch, Share, seal
from broker.client.writing.encoding import MOST, EncodedHeaders
from broker.wire import batch

OWNER = Batch(lambda owner, some: 0, lambda done: None)
NULLABLE = st.none() | st.binary(max_size=300) | st.integers(8180, 8200).map(bytes)
HEADERS = st.none() | st.lists(st.tuples(st.text(max_size=5), st.none() | st.text(max_size=9) | st.binary(max_size=9)))


@st.composite
def shares(draw: st.DrawFn) -> list[Share]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        messages: list[Sending] = []
        for _ in range(draw(st.integers(1, 5))):
            headers = draw(HEADERS)
            kept = EncodedHeaders(headers) if headers is not None and draw(st.booleans()) else headers
            asked = draw(st.sampled_from([None, nobody, somebody]))
            messages.append(("t", draw(NULLABLE), draw(NULLABLE), kept, asked, 0))
        found.append(Share(OWNER, messages, 1_700_000_000_000 + draw(st.integers(-5, 70_000)), float(number)))
    return found


def nobody(*place: object) -> None:
    pass


def somebody(*place: object) -> None:
    pass


def plain(message: Sending, stamp: int) -> tuple[object, ...]:
    headers = [(name, each.encode() if isinstance(each, str) else each) for name, each in message[3] or ()]
    return message[2], message[1], headers, stamp


@settings(deadline=None, max_examples=100)
@given(shares(), st.sampled_from([1, 500, 9000, 1_000_000]))
def test_every_message_is_in_one_batch_in_order(given_shares: list[Share], room: int) -> None:
    wanted = [plain(message, share.stamp) for share in given_shares for message in share.messages]
    asked = [message[4] for share in given_shares for message in share.messages]
    queue, read = deque(given_shares), []
    number = 0
    while queue:
        sealed = seal(queue, room, (number,))
        sealed.number(7, 1, number)
        (one,) = batch.validate(b"".join(sealed.data), 1 << 30)
        assert (one.producer_id, one.producer_epoch, one.base_sequence) == (7, 1, number)
        assert one.count == sealed.count and (one.size <= room + batch.HEADER_SIZE or one.count == 1)
        who, turns, wanting = None, dict(sealed.asked), []
        for at in range(one.count):
            who = turns.get(at, who)
            wanting.append(who)
        assert wanting == asked[number : number + one.count]
        assert all(who is not before for (_, who), (_, before) in pairwise(sealed.asked))
        records = list(batch.records(one))
        assert [record.timestamp for record in records] == sealed.stamps
        read += [(record.key, record.value, list(record.headers), record.timestamp) for record in records]
        assert one.max_timestamp == max(record.timestamp for record in records)
        number += one.count
    assert read == wanted


def test_a_batch_has_no_more_records_than_its_table_of_numbers() -> None:
    message: Sending = ("t", b"", b"", None, None, 0)
    queue = deque([Share(OWNER, [message] * (MOST + 10), 1, 1.0)])
    assert [seal(queue, 1 << 30, (number,)).count for number in range(2)] == [MOST, 10]


def test_headers_with_others_added_are_encoded_anew() -> None:
    kept = EncodedHeaders([("a", "1")])
    more = kept + [("b", None)]  # noqa: RUF005  # as callers do
    assert type(more) is list and type(kept[:]) is list and kept == [("a", "1")]
