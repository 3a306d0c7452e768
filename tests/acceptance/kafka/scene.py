"""Kafka clients that go on through every restart of the broker, and the history of what they were told."""

import random
import threading
import time

from broker.client import Consumer, Producer, Settings, TopicPartition, errors, types
from tests.acceptance.kafka.history import History, Transaction

PARTITIONS = 4  # of the topic "plain"
WRITERS = 3


class Scene:
    """Writers, a transactional writer and a committer. `pause`: seconds a writer rests between two bursts."""

    def __init__(self, settings: Settings, *, pause: float = 0.0) -> None:
        self.settings = settings
        self.pause = pause
        self.history = History()
        self.lock = threading.Lock()
        self.halt = threading.Event()
        self.errors: list[BaseException] = []
        work = [*((self.write, n) for n in range(WRITERS)), (self.transact, 0), (self.commit, 0)]
        self.threads = [threading.Thread(target=self._guard, args=each, daemon=True) for each in work]

    def _guard(self, work: object, number: int) -> None:
        try:
            work(number)  # type: ignore[operator]
        except BaseException as error:
            self.errors.append(error)

    def write(self, writer: int) -> None:
        """An idempotent producer, its own values to its own partition, many in flight."""
        producer = Producer(self.settings, delivery_timeout=60)
        partition, number = writer % PARTITIONS, 0
        while not self.halt.is_set():
            values = [f"w{writer}-{number + n}" for n in range(50)]
            number += 50
            outcomes: dict[str, tuple[errors.ClientError | None, int]] = {}

            def record(error: object, message: object, into: dict = outcomes) -> None:  # type: ignore[type-arg]
                value = message.value().decode()  # type: ignore[attr-defined]
                into[value] = (errors.translate(error) if error else None, message.offset())  # type: ignore[arg-type,attr-defined]

            for value in values:
                producer._raw.produce("plain", value.encode(), partition=partition, on_delivery=record)
            while len(outcomes) < len(values):
                producer.poll(0.05)
            with self.lock:
                for value, (error, offset) in outcomes.items():
                    if error is None:
                        self.history.acknowledged[value] = ("plain", partition, offset)
            if producer.fatal is not None:
                producer.close(0)
                producer = Producer(self.settings, delivery_timeout=60)
            self.halt.wait(self.pause)
        producer.close(5)

    def transact(self, writer: int) -> None:
        """Transactions over two partitions, every third aborted. The sent values count once they were acknowledged."""
        source, number, producer = random.Random(7), 0, self._transactional()
        while not self.halt.is_set():
            values: list[str] = []
            outcome = "unknown"
            try:
                producer.begin()
                for _ in range(source.randint(2, 6)):
                    value = f"tx{writer}-{number}"
                    number += 1
                    place = producer.send("atomic", value.encode(), partition=number % 2, timeout=60)
                    values.append(value)
                    with self.lock:
                        self.history.acknowledged[value] = (place.topic, place.partition, place.offset)
                if source.random() < 0.33:
                    producer.abort(20)
                    outcome = "aborted"
                else:
                    producer.commit(20)
                    outcome = "committed"
            except errors.ClientError:
                producer.close(0)
                producer = self._transactional()
            with self.lock:
                self.history.transactions.append(Transaction(values, outcome))
        producer.close(5)

    def _transactional(self) -> Producer:
        while True:
            producer = Producer(self.settings, transactional_id="the-writer", transaction_timeout=60)
            try:
                producer.init_transactions(30)
                return producer
            except errors.ClientError:
                producer.close(0)

    def commit(self, _: int) -> None:
        """A group's offset, always rising."""
        consumer = Consumer(self.settings, "committer")
        place, offset = TopicPartition("plain", 0), 0
        while not self.halt.is_set():
            offset += 1
            with self.lock:
                self.history.offsets_attempted["committer"] = offset
            try:
                consumer.commit({place: offset})
            except errors.ClientError:
                continue
            with self.lock:
                self.history.offsets_acknowledged["committer"] = offset
            time.sleep(0.002)
        consumer.close()

    def read(self, isolation: str, topics: dict[str, int], ends: dict[TopicPartition, types.FoundOffset]) -> None:
        """Everything up to these ends, into the history."""
        consumer = Consumer(self.settings, isolation=isolation)
        consumer.assign({TopicPartition(topic, index): 0 for topic, count in topics.items() for index in range(count)})
        deadline = time.monotonic() + 60
        left = {place for place, end in ends.items() if end.offset > 0}
        while left and time.monotonic() < deadline:
            for record in consumer.poll(2000, 0.2):
                where, value = (record.topic, record.partition, record.offset), (record.value or b"").decode()
                if isolation == "read_committed":
                    self.history.committed_reads.append((where, value))
                else:
                    self.history.observe(where, value)
            for place, position in consumer.position(left).items():
                if position >= ends[place].offset:
                    left.discard(place)
        consumer.close()
        assert not left, f"could not read {left} to the end"
