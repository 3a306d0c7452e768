"""What a closed producer has in its handle's place: nothing is outstanding, and nothing more is taken."""

from typing import NoReturn

from confluent_kafka import KafkaError, KafkaException


class Closed:
    """The calls of confluent-kafka's producer that ours makes."""

    def __len__(self) -> int:
        return 0

    def poll(self, _: float) -> int:
        return 0

    def flush(self, _: float) -> int:
        return 0

    def purge(self) -> None: ...

    def produce(self, *_: object) -> NoReturn:
        """Fails as a message does that the log certainly doesn't hold."""
        raise KafkaException(KafkaError(KafkaError._DESTROY, "the producer is closed"))

    list_topics = init_transactions = begin_transaction = commit_transaction = abort_transaction = produce
    send_offsets_to_transaction = produce
