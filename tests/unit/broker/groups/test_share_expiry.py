"""What has expired is not handed out; by the very rule that `run_consumer` has."""

from hypothesis import example, given
from hypothesis import strategies as st

from broker.client import expiry
from broker.client.records import Record as ClientRecord
from broker.groups.share_expiry import expired, may_expire
from broker.groups.share_partition import Acquired
from broker.wire import batch
from broker.wire.batch import Record

NOW = 1_700_000_000_000
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=24),
    st.integers(-5, 2**33).map(lambda n: b"%d" % n),
    st.integers(NOW - 10_000, NOW + 10_000).map(lambda n: b"%d" % n),
)
HEADERS = st.lists(st.tuples(st.sampled_from(["sluice.expires.at", "mqtt.message.expiry", "x"]), VALUES), max_size=4)


@given(headers=HEADERS, age=st.integers(0, 20_000))
@example(headers=[("sluice.expires.at", b"1"), ("sluice.expires.at", b"never")], age=0)
@example(headers=[("mqtt.message.expiry", b"5")], age=5_000)
@example(headers=[("mqtt.message.expiry", b"5")], age=4_999)
def test_share_groups_and_run_consumer_judge_alike(headers: list[tuple[str, bytes | None]], age: int) -> None:
    record = Record(offset=0, timestamp=NOW - age, key=None, value=b"v", headers=tuple(headers))
    made = batch.build([record], base_offset=0)
    batches = batch.split(made)
    theirs = ClientRecord("t", 0, 0, NOW - age, None, b"v", tuple(headers))
    late = expired(batches, [Acquired(0, 0, 1)], NOW)
    assert (late == [0]) is expiry.is_expired(theirs, NOW / 1000)
    if late:
        assert may_expire(bytes(made), batches)
