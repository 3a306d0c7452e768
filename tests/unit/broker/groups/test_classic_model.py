"""Random lives of a classic group: joins, leaves, silence, broken disks, crashes with replay."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.groups.classic_calls import Join, Joined, Leaver, Sync, Synced
from broker.groups.coordinator import GroupCoordinator
from broker.groups.directory import OffsetCommitCall, OffsetFetchCall
from broker.groups.offsets import Commit
from broker.groups.ports import Reply, StateUnwritable
from broker.wire.errors import ErrorCode
from tests.unit.broker.groups.world import KeptConfigs, KeptLog, KeptTopics, counting

PARTITIONS = 6


@dataclass(eq=False)
class Client:
    """A well-behaved client, as far as the machine drives it."""

    instance_id: str | None
    member_id: str = ""
    joining: Reply[Joined] | None = None
    syncing: Reply[Synced] | None = None
    joined: Joined | None = None
    owned: frozenset[int] = field(default_factory=frozenset)


class ClassicLife(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.log = KeptLog()
        self.now = 1_000_000
        self.new_id = counting()
        self.clients = [Client(instance_id=None), Client(instance_id=None), Client(instance_id="i1")]
        self.out: list[Reply[Joined] | Reply[Synced]] = []
        self.owners: dict[tuple[int, str], dict[int, str]] = {}
        self.kept: dict[int, int] = {}
        self.random = random.Random(1)
        self.boot()

    def boot(self) -> None:
        self.groups = self.replayed(self.log.records)

    def replayed(self, records: list[tuple[bytes, bytes | None]]) -> GroupCoordinator:
        groups = GroupCoordinator(
            log=self.log, topics=KeptTopics(t=PARTITIONS), configs=KeptConfigs(), new_id=self.new_id
        )
        for key, value in records:
            groups.replay(key, value)
        groups.resume(self.now)
        return groups

    # -- what clients do ------------------------------------------------------------------------------------

    @rule(static=st.booleans(), name=st.integers(0, 2))
    def arrive(self, static: bool, name: int) -> None:
        if len(self.clients) < 6:
            self.clients.append(Client(instance_id=f"i{name}" if static else None))

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 5), preference=st.permutations(["range", "roundrobin"]))
    def join(self, which: int, preference: list[str]) -> None:
        client = self.clients[which % len(self.clients)]
        if client.joining is not None or client.syncing is not None:
            return
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
                protocols=tuple((name, b"") for name in preference),
                skip_assignment=True,
            ),
            self.now,
        )
        client.joining, client.owned = reply, frozenset()
        self.out.append(reply)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 5))
    def sync(self, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        joined = client.joined
        if joined is None or client.syncing is not None or client.joining is not None:
            return
        assignments: list[tuple[str, bytes]] = []
        if joined.leader == joined.member_id and not joined.skip_assignment:
            parts = list(range(PARTITIONS))
            self.random.shuffle(parts)
            members = [m.member_id for m in joined.members]
            assignments = [(m, bytes(parts[i :: len(members)])) for i, m in enumerate(members)]
        client.syncing = self.groups.sync(
            Sync(
                group_id="g",
                generation_id=joined.generation_id,
                member_id=joined.member_id,
                instance_id=client.instance_id,
                protocol_type=joined.protocol_type,
                protocol_name=joined.protocol_name,
                assignments=tuple(assignments),
            ),
            self.now,
        )
        self.out.append(client.syncing)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 5))
    def beat(self, which: int) -> None:
        client = self.clients[which % len(self.clients)]
        if client.joined is not None:
            error = self.groups.heartbeat(
                "g", client.member_id, client.instance_id, client.joined.generation_id, self.now
            )
            if error is not ErrorCode.NONE:
                client.joined = None
                client.owned = frozenset()
                if error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
                    client.member_id = ""

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 5), says=st.booleans())
    def go(self, which: int, says: bool) -> None:
        client = self.clients.pop(which % len(self.clients))
        if says and client.member_id:
            leaver = Leaver(member_id=client.member_id, instance_id=client.instance_id)
            self.groups.leave("g", [leaver], self.now)

    @precondition(lambda self: self.clients)
    @rule(which=st.integers(0, 5), partition=st.integers(0, PARTITIONS - 1), offset=st.integers(0, 99))
    def commit(self, which: int, partition: int, offset: int) -> None:
        client = self.clients[which % len(self.clients)]
        generation = client.joined.generation_id if client.joined else -1
        call = OffsetCommitCall(
            group_id="g",
            generation_or_epoch=generation,
            member_id=client.member_id,
            instance_id=client.instance_id,
            commits=(Commit("t", partition, offset, -1, ""),),
        )
        try:
            (code,) = self.groups.commit_offsets(call, self.now)
        except StateUnwritable:
            return
        if code is ErrorCode.NONE:
            self.kept[partition] = offset

    @precondition(lambda self: self.clients)
    @rule(ms=st.sampled_from([100, 300]), times=st.integers(1, 3))
    def everybody_behaves(self, ms: int, times: int) -> None:
        self.log.broken = False
        for call in (self.beat, self.join, self.join, self.sync) * times:
            for which in range(len(self.clients)):
                call(which=which, **({"preference": ["range"]} if call == self.join else {}))
                self.answers_are_taken_and_no_partition_has_two_owners()
            self.pass_time(ms=ms)
            self.answers_are_taken_and_no_partition_has_two_owners()

    # -- what the world does ----------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 60, 100, 1_000, 4_000, 9_000, 30_000]))
    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while (at := self.groups.next_deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            self.groups.tick(self.now)
        self.now = end

    @rule()
    def break_or_mend_the_disk(self) -> None:
        self.log.broken = not self.log.broken

    @rule()
    def crash(self) -> None:
        self.log.broken = False
        self.boot()
        self.out.clear()
        for client in self.clients:
            client.joining = client.syncing = None

    # -- what must hold -----------------------------------------------------------------------------------------

    @invariant()
    def answers_are_taken_and_no_partition_has_two_owners(self) -> None:
        for client in self.clients:
            if client.joining is not None and client.joining.done:
                joined, client.joining = client.joining.value, None
                if joined.error is ErrorCode.NONE:
                    client.joined, client.member_id = joined, joined.member_id
                elif joined.error is ErrorCode.MEMBER_ID_REQUIRED:
                    client.member_id = joined.member_id
                elif joined.error in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
                    client.member_id, client.joined = "", None
            if client.syncing is not None and client.syncing.done:
                synced, client.syncing = client.syncing.value, None
                if synced.error is ErrorCode.NONE and client.joined is not None:
                    client.owned = frozenset(synced.assignment)
                    self.owned(client, client.joined)
                else:
                    client.joined = None

    def owned(self, client: Client, joined: Joined) -> None:
        owners = self.owners.setdefault((joined.generation_id, joined.protocol_name or ""), {})
        name = client.instance_id or client.member_id  # a static member hands its share to its next self
        for partition in client.owned:
            assert owners.setdefault(partition, name) == name

    @invariant()
    def one_leader_leads(self) -> None:
        """A static leader that came back is told that it leads, and to assign nothing (KIP-814)."""
        leaders = {
            (c.joined.generation_id, c.joined.member_id)
            for c in self.clients
            if c.joined is not None and c.joined.leader == c.joined.member_id and not c.joined.skip_assignment
        }
        assert len({generation for generation, _ in leaders}) == len(leaders)

    @invariant()
    def replay_gives_the_same_state_with_and_without_compaction(self) -> None:
        whole, compacted = self.replayed(self.log.records), self.replayed(self.log.compacted())
        assert whole.list_groups() == compacted.list_groups()
        assert whole.describe_group("g") == compacted.describe_group("g")
        live = self.groups.describe_group("g")
        if live.state == "Stable":
            assert {m.member_id for m in whole.describe_group("g").members} >= {m.member_id for m in live.members}
        for coordinator in (whole, compacted, self.groups):
            offsets = coordinator.fetch_offsets(OffsetFetchCall(group_id="g")).offsets
            assert {o.partition: o.committed.offset for o in offsets if o.committed} == self.kept

    def teardown(self) -> None:
        if not hasattr(self, "groups"):
            return
        self.log.broken = False
        for _ in range(40):
            self.pass_time(30_000)
        assert all(reply.done for reply in self.out)


ClassicLife.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestClassicLife = ClassicLife.TestCase
