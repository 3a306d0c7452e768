"""Which topics hold dead letters, by their names."""

PREFIX = "dlq."
SUFFIX = "-dlt"  # Spring Kafka's


def holds_dead_letters(topic: str) -> bool:
    """Whether this is a dead-letter topic of ours (`dlq.`) or of Spring Kafka (`-dlt`)."""
    return topic.startswith(PREFIX) or topic.endswith(SUFFIX)
