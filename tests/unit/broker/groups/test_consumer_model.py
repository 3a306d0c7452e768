"""Random lives of a consumer group with members of both protocols: nobody ever owns what somebody else has."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.groups.assignors import Partition
from broker.groups.classic_calls import Join, Leaver, Sync
from broker.groups.consumer_state import ConsumerHeartbeat
from broker.groups.coordinator import GroupCoordinator
from broker.groups.migration import assignment_of
from broker.groups.subscription import SUBSCRIPTION, encode_embedded
from broker.wire import codec
from broker.wire.errors import ErrorCode
from tests.unit.broker.groups.world import KeptConfigs, KeptLog, KeptTopics, counting

Subscription = codec.struct(SUBSCRIPTION)
OwnedTopic = codec.struct(f"{SUBSCRIPTION}.TopicPartition")


@dataclass(eq=False)
class Client:
    """A client of either protocol that does what it is told."""

    name: str
    classic: bool
    instance_id: str | None
    topics: frozenset[str]
    member_id: str = ""
    epoch: int = 0
    owned: frozenset[Partition] = frozenset()
    revoking: frozenset[Partition] = frozenset()
    """Told to give up, and still at work on until its next step."""

    def told(self, assignment: frozenset[Partition]) -> None:
        self.revoking = self.owned - assignment
        self.owned = assignment


class ConsumerLife(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.log = KeptLog()
        self.now = 1_000_000
        self.topics = KeptTopics(t=4, u=3)
        self.new_id = counting()
        self.count = 0
        self.clients: list[Client] = []
        self.groups = self.replayed(self.log.records)
        for static in (None, "i0"):
            self.arrive(classic=False, static=static is not None, name=0, topics={"t"})

    def replayed(self, records: list[tuple[bytes, bytes | None]]) -> GroupCoordinator:
        groups = GroupCoordinator(log=self.log, topics=self.topics, configs=KeptConfigs(), new_id=self.new_id)
        for key, value in records:
            groups.replay(key, value)
        groups.resume(self.now)
        return groups

    # -- what clients do ------------------------------------------------------------------------------------

    @rule(
        classic=st.booleans(),
        static=st.booleans(),
        name=st.integers(0, 2),
        topics=st.sets(st.sampled_from(["t", "u", "gone"]), min_size=1),
    )
    def arrive(self, classic: bool, static: bool, name: int, topics: set[str]) -> None:
        if len(self.clients) < 5:
            self.count += 1
            instance = f"i{name}" if static else None
            self.clients.append(Client(f"m{self.count}", classic, instance, frozenset(topics)))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 4))
    def step(self, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        if client.classic:
            self.step_classic(client)
        else:
            self.step_consumer(client)

    def step_consumer(self, client: Client, lose_answer: bool = False) -> None:
        joining = client.epoch == 0
        client.revoking = frozenset()
        beat = self.groups.consumer_heartbeat(
            ConsumerHeartbeat(
                group_id="g",
                member_id=client.name,
                member_epoch=client.epoch,
                instance_id=client.instance_id,
                rebalance_timeout_ms=20_000,
                topics=client.topics if joining else None,
                owned=frozenset() if joining else client.owned,
            ),
            self.now,
        )
        if lose_answer:
            return
        if beat.error is not ErrorCode.NONE:
            client.epoch, client.owned = 0, frozenset()
            if beat.error is ErrorCode.FENCED_INSTANCE_ID:
                self.clients.remove(client)
            return
        client.epoch = beat.epoch
        if beat.assignment is not None:
            client.told(beat.assignment)

    def step_classic(self, client: Client) -> None:
        """A cooperative client: joins with what it owns, syncs, and beats."""
        client.revoking = frozenset()
        if client.member_id and client.epoch:
            error = self.groups.heartbeat("g", client.member_id, client.instance_id, client.epoch, self.now)
            if error is ErrorCode.NONE:
                return
            if error is not ErrorCode.REBALANCE_IN_PROGRESS:
                client.member_id, client.owned, client.epoch = "", frozenset(), 0
        by_topic: dict[str, list[int]] = {}
        for topic, index in client.owned:
            by_topic.setdefault(topic.rstrip(b"\0").decode(), []).append(index)
        subscription = Subscription(
            topics=sorted(client.topics),
            owned_partitions=[OwnedTopic(topic=t, partitions=p) for t, p in by_topic.items()],
        )
        reply = self.groups.join(
            Join(
                group_id="g",
                member_id=client.member_id,
                instance_id=client.instance_id,
                client_id="c",
                client_host="h",
                session_timeout_ms=10_000,
                rebalance_timeout_ms=20_000,
                protocol_type="consumer",
                protocols=(("cooperative-sticky", encode_embedded(subscription, 1)),),
                require_member_id=False,
            ),
            self.now,
        )
        if not reply.done:
            # A classic group: nobody assigns here, so leave it at that.
            return
        joined = reply.value
        if joined.error is not ErrorCode.NONE:
            client.member_id, client.owned, client.epoch = "", frozenset(), 0
            return
        client.member_id, client.epoch = joined.member_id, joined.generation_id
        synced = self.groups.sync(
            Sync(
                group_id="g",
                generation_id=joined.generation_id,
                member_id=joined.member_id,
                instance_id=client.instance_id,
                protocol_type=None,
                protocol_name=None,
            ),
            self.now,
        )
        if synced.done and synced.value.error is ErrorCode.NONE:
            client.told(assignment_of(synced.value.assignment, self.topics))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 4))
    def lose_an_answer(self, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        if not client.classic and client.epoch > 0:
            self.step_consumer(client, lose_answer=True)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 4), says=st.sampled_from(["nothing", "goodbye", "back soon"]))
    def go(self, which: int, says: str) -> None:
        client = self.clients.pop(which % len(self.clients))
        if says == "nothing":
            return
        if client.classic:
            leaver = Leaver(member_id=client.member_id, instance_id=client.instance_id)
            self.groups.leave("g", [leaver], self.now)
        else:
            epoch = -2 if says == "back soon" and client.instance_id else -1
            call = ConsumerHeartbeat(
                group_id="g", member_id=client.name, member_epoch=epoch, instance_id=client.instance_id
            )
            self.groups.consumer_heartbeat(call, self.now)

    @rule()
    def everybody_beats(self) -> None:
        for client in list(self.clients):
            if client in self.clients:
                self.step(which=self.clients.index(client))

    # -- what the world does ----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([100, 4_000, 15_000, 46_000]))
    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.groups.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.groups.tick(self.now)
        self.now = end

    @rule(name=st.sampled_from(["t", "u", "gone"]), count=st.integers(1, 6))
    def change_topics(self, name: str, count: int) -> None:
        known = self.topics.topic(name)
        if known is None or known.partitions < count:
            self.topics.put(name, count)

    @rule()
    def crash(self) -> None:
        self.groups = self.replayed(self.log.records)

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def the_broker_gives_no_partition_twice(self) -> None:
        held: dict[Partition, str] = {}
        for member in self.groups.describe_consumers("g").members:
            for partition in member.holds:
                assert held.setdefault(partition, member.id) == member.id

    @invariant()
    def no_two_living_clients_think_they_own_the_same(self) -> None:
        """Clients the broker still knows under the epoch they think they have."""
        known = {m.id: m for m in self.groups.describe_consumers("g").members}
        owners: dict[Partition, str] = {}
        for client in self.clients:
            member = known.get(client.member_id if client.classic else client.name)
            if member is not None and client.epoch in (member.epoch, member.previous_epoch):
                for partition in client.owned | client.revoking:
                    assert owners.setdefault(partition, client.name) == client.name

    @invariant()
    def replay_gives_the_same_group_with_and_without_compaction(self) -> None:
        live = self.groups.describe_consumers("g")
        for records in (self.log.records, self.log.compacted()):
            again = self.replayed(records).describe_consumers("g")
            assert again.epochs == live.epochs
            assert {m.id: m for m in again.members} == {m.id: m for m in live.members}

    def teardown(self) -> None:
        if not hasattr(self, "groups"):
            return
        quiet, epochs = 0, self.groups.describe_consumers("g").epochs
        for _ in range(120):
            self.everybody_beats()
            self.pass_time(1_000)
            # Members that went without a word leave when their time is up, and make a new epoch.
            now = self.groups.describe_consumers("g").epochs
            quiet, epochs = (quiet + 1 if now == epochs else 0), now
            if quiet == 12:
                break
        group = self.groups.describe_consumers("g")
        if group.error is ErrorCode.NONE and group.members and all(c.epoch > 0 for c in self.clients):
            names = {c.member_id if c.classic else c.name for c in self.clients}
            if names == {m.id for m in group.members}:
                assert group.state == "Stable", "members that do as they are told converge"
                assert group.epochs is not None
                wanted = {(t, i) for t, n in group.epochs.topics.items() for i in range(n)}
                assert {p for m in group.members for p in m.assigned} == wanted


ConsumerLife.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestConsumerLife = ConsumerLife.TestCase
