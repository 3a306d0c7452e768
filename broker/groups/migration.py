"""A group changes its protocol while its members stay (KIP-848, online migration).

Up: the first member of the new protocol makes a consumer group of a classic one whose protocol type is `consumer`. The
members stay what they are: their generation becomes their epoch, what their leader gave them their assignment. From
then on they are served by `classic_face`. Down: when the last member of the new protocol has left, those that remain
make a classic group again, and rebalance.
"""

from __future__ import annotations

from broker.groups.assignors import Partition
from broker.groups.classic import ClassicGroup
from broker.groups.classic_state import Member, Snapshot
from broker.groups.consumer import ConsumerGroup
from broker.groups.consumer_state import ClassicFace, ConsumerMember, Epochs, by_topic
from broker.groups.ports import Topics
from broker.groups.subscription import (
    ASSIGNMENT,
    ConsumerProtocolAssignment,
    ConsumerProtocolTopic,
    decode_embedded,
    embedded_version,
    encode_embedded,
    subscribed_topics,
)


def assignment_of(data: bytes, topics: Topics) -> frozenset[Partition]:
    """Partitions in an embedded assignment; topics that are gone are left out."""
    parsed = decode_embedded(ASSIGNMENT, data)
    if parsed is None:
        return frozenset()
    found = ((topics.topic(t.topic), t.partitions) for t in parsed.assigned_partitions)
    return frozenset((topic.id, i) for topic, indexes in found if topic is not None for i in indexes)


def embedded_assignment(member: ConsumerMember, topics: Topics) -> bytes:
    """The member's partitions as its classic client reads them."""
    version = 0
    if member.classic is not None and member.classic.protocols:
        version = embedded_version(member.classic.protocols[0][1])
    named = ((topics.topic_by_id(topic), indexes) for topic, indexes in by_topic(member.assigned).items())
    message = ConsumerProtocolAssignment(
        assigned_partitions=[
            ConsumerProtocolTopic(topic=topic.name, partitions=indexes) for topic, indexes in named if topic is not None
        ]
    )
    return encode_embedded(message, version)


def consumer_from_classic(group: ClassicGroup, topics: Topics) -> tuple[Epochs, list[ConsumerMember]]:
    """The classic group's members and generation as a consumer group's."""
    taken: set[Partition] = set()
    members = []
    for m in group.members.values():
        # A leader's mistake must not become two owners here: the first one listed keeps the partition.
        assigned = assignment_of(m.assignment, topics) - taken
        taken |= assigned
        members.append(
            ConsumerMember(
                id=m.id,
                instance_id=m.instance_id,
                client_id=m.client_id,
                client_host=m.client_host,
                rebalance_timeout_ms=m.rebalance_timeout_ms,
                topics=subscribed_topics(m.metadata(group.protocol) or (m.protocols[0][1] if m.protocols else b"")),
                epoch=group.generation,
                previous_epoch=group.generation,
                assigned=assigned,
                classic=ClassicFace(session_timeout_ms=m.session_timeout_ms, protocols=m.protocols),
            )
        )
    counts = {topic.id: topic.partitions for m in members for n in m.topics if (topic := topics.topic(n)) is not None}
    return Epochs(epoch=group.generation, target={m.id: m.assigned for m in members}, topics=counts), members


def classic_from_consumer(group: ConsumerGroup, now: int) -> Snapshot:
    """The remaining members, all of the classic protocol, as a classic group."""
    members = tuple(
        Member(
            id=m.id,
            instance_id=m.instance_id,
            client_id=m.client_id,
            client_host=m.client_host,
            session_timeout_ms=m.classic.session_timeout_ms,
            rebalance_timeout_ms=m.rebalance_timeout_ms,
            protocols=m.classic.protocols,
            assignment=embedded_assignment(m, group.topics),
        )
        for m in group.members.values()
        if m.classic is not None
    )
    first = members[0]
    common = [n for n, _ in first.protocols if all(any(n == o for o, _ in m.protocols) for m in members)]
    return Snapshot(
        group_id=group.id,
        generation=group.epoch,
        protocol_type="consumer",
        protocol=common[0] if common else first.protocols[0][0],
        leader=first.id,
        changed_at=now,
        members=members,
    )
