"""Claims: every gateway that reads the same records comes to the same holder, whatever died or slept meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import Presence, StoredSession
from gateway.moving.steps import Step, step
from gateway.peers.claims import Claims, Denied, Holder, Overwritten, Taken, Won
from gateway.peers.presence import PresenceBook
from gateway.ports import Receipt, settled


def claim(gateway: str, token: str, **fields: object) -> Presence:
    return replace(
        Presence(client_id="c", online=True, since=0.0, gateway=gateway, token=token, clean=False),
        **fields,  # type: ignore[arg-type]  # a test's
    )


def test_the_newer_claim_holds_and_the_older_holder_hears_of_it() -> None:
    a, b = Claims("a"), Claims("b")
    a.claiming("c", "a1")
    assert a.hear("c", claim("a", "a1"), 10) == Won(client_id="c", token="a1", epoch=10, previous=None)
    b.hear("c", claim("a", "a1"), 10)
    b.claiming("c", "b1")
    taken = a.hear("c", claim("b", "b1"), 11)
    won = b.hear("c", claim("b", "b1"), 11)
    assert isinstance(taken, Taken) and taken.mine.epoch == 10 and taken.by.gateway == "b" and not taken.adopted
    assert isinstance(won, Won) and won.previous is not None and won.previous.gateway == "a"


def test_another_principals_claim_does_not_count() -> None:
    a = Claims("a")
    a.hear("c", claim("b", "b1", principal="owner"), 10)
    a.claiming("c", "a1")
    assert a.hear("c", claim("a", "a1", principal="thief"), 11) == Denied(client_id="c", token="a1")
    assert a.holders["c"].gateway == "b"
    b = Claims("b")
    b.hear("c", claim("b", "b1", principal="owner"), 10)
    assert isinstance(b.hear("c", claim("a", "a1", principal="thief"), 11), Overwritten)


def test_an_adopter_never_takes_a_client_from_a_device_that_came_back() -> None:
    c = Claims("c")
    c.hear("c", claim("dead", "d1"), 5)
    c.hear("c", claim("b", "b1"), 6)
    c.claiming("c", "c1")
    assert isinstance(c.hear("c", claim("c", "c1", adopts=5, online=False), 7), Denied)
    c.claiming("c", "c2")
    assert isinstance(c.hear("c", claim("c", "c2", adopts=6, online=False), 8), Won)


def test_what_a_replaced_gateway_says_later_is_void_and_the_holder_says_its_own_again() -> None:
    b = Claims("b")
    b.hear("c", claim("a", "a1"), 5)
    b.claiming("c", "b1")
    b.hear("c", claim("b", "b1"), 6)
    assert isinstance(b.hear("c", claim("a", "a2", epoch=5, online=False), 7), Overwritten)
    assert b.holders["c"] == Holder(gateway="b", epoch=6, principal="", online=True, durable=True)


def test_records_of_a_release_without_claims_stand_for_claims() -> None:
    a = Claims("a")
    a.hear("c", claim("old", ""), 3)
    assert a.holders["c"].epoch == 3 and a.gateways() == ["old"]


def test_sessions_that_are_kept_count_for_their_principal_wherever_they_are() -> None:
    a = Claims("a")
    a.hear("c1", claim("b", "b1", client_id="c1", principal="pump"), 1)
    a.hear("c2", claim("b", "b2", client_id="c2", principal="pump", clean=True), 2)
    assert a.kept("pump") == 1 and a.keeps("c1", "pump") and not a.keeps("c2", "pump")
    a.claiming("c3", "a1", "pump")
    a.claiming("c3", "a2", "pump")
    a.claiming("c1", "a3", "pump")
    assert a.kept("pump") == 2 and a.keeps("c3", "pump"), "a claim on its way counts, one for what is kept doesn't"
    a.hear("c3", claim("a", "a1", client_id="c3", principal="pump"), 3)
    assert a.kept("pump") == 2
    a.hear("c1", claim("b", "b3", client_id="c1", principal="pump", epoch=1, online=False), 4)
    assert a.kept("pump") == 2, "away it is kept as well"
    a.hear("c1", claim("b", "b4", client_id="c1", principal="pump", epoch=1, online=False, clean=True), 5)
    a.hear("c3", None, 6)
    assert a.kept("pump") == 0


def test_a_claim_that_may_not_be_in_the_log_counts_once_it_is_read() -> None:
    a = Claims("a")
    a.claiming("c", "a1", "pump")
    a.failed("a1")
    a.failed("a1")
    assert a.kept("pump") == 0 and not a.keeps("c", "pump")
    a.hear("c", claim("a", "a1", principal="pump"), 1)
    assert a.kept("pump") == 1


def test_the_end_of_an_adopted_session_is_said_and_no_longer_counts() -> None:
    claims = Claims("a")
    written: list[tuple[bytes | None, Any]] = []

    def write(topic: str, value: bytes | None, key: bytes | None, headers: Any) -> Receipt[Any]:
        written.append((value, headers))
        return settled()

    book = PresenceBook("a", claims, write, lambda: None, started=0.0)  # type: ignore[arg-type,return-value]  # unused
    claims.hear("c", claim("dead", "d1", principal="pump", online=False), 1)
    book.claim(claim("a", "", principal="pump", online=False), adopts=1)
    assert isinstance(book.hear("c", *written.pop(), 2)[1], Won)
    assert claims.kept("pump") == 1
    book.amend("c", clean=True)
    book.flush()
    book.hear("c", *written.pop(), 3)
    assert claims.kept("pump") == 0 and not claims.holders and not book.last


def session(gateway: str, *, released: bool = False, taker: str = "", expiry: int = 60) -> StoredSession:
    return StoredSession(client_id="c", owner="", gateway=gateway, expiry=expiry, released=released, taker=taker)


def test_a_session_is_taken_when_its_owner_let_go_or_died() -> None:
    def decide(record: StoredSession | None, *dead: str) -> Step:
        return step(record, "me", lambda name: name not in dead)

    assert decide(None) is Step.TAKE
    assert decide(session("a")) is Step.WAIT
    assert decide(session("a"), "a") is Step.LEFT
    assert decide(session("a", released=True)) is Step.TAKE
    assert decide(session("a", released=True, taker="b")) is Step.WAIT
    assert decide(session("a", released=True, taker="b"), "a", "b") is Step.TAKE
    assert decide(session("a", released=True, taker="me")) is Step.GO_ON
    assert decide(session("me", released=True)) is Step.TAKE
    assert decide(session("me")) is Step.WAIT  # that it was let go of is under way
    assert decide(session("me", expiry=0)) is Step.TAKE


# --- a model: gateways that claim, die, sleep and wake, over one log


@dataclass
class Gateway:
    name: str
    claims: Claims
    read: int = 0
    connected: dict[str, str] = field(default_factory=dict)  # client → token of the live connection

    def catch_up(self, log: list[tuple[str, Presence]], limit: int) -> None:
        for offset in range(self.read, min(limit, len(log))):
            client_id, record = log[offset]
            heard = self.claims.hear(client_id, record, offset)
            if isinstance(heard, Taken) and not self.claims.unheard(client_id):
                self.connected.pop(client_id, None)
            elif isinstance(heard, Denied) and self.connected.get(client_id) == heard.token:
                del self.connected[client_id]
        self.read = max(self.read, min(limit, len(log)))


CLIENTS = ("x", "y")
MOVES = st.one_of(
    st.tuples(st.just("connect"), st.integers(0, 2), st.sampled_from(CLIENTS)),
    st.tuples(st.just("adopt"), st.integers(0, 2), st.sampled_from(CLIENTS)),
    st.tuples(st.just("leave"), st.integers(0, 2), st.sampled_from(CLIENTS)),
    st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.just("crash"), st.integers(0, 2), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MOVES, max_size=40))
def test_gateways_agree_and_at_most_one_connection_stays(moves: list[tuple[str, int, object]]) -> None:
    log: list[tuple[str, Presence]] = []
    crowd = [Gateway(name, Claims(name)) for name in "abc"]
    for number, (kind, index, what) in enumerate(moves):
        gateway = crowd[index]
        token = f"{gateway.name}{number}"
        if kind == "connect":
            client_id = str(what)
            gateway.claims.claiming(client_id, token, "")
            gateway.connected[client_id] = token
            log.append((client_id, replace(claim(gateway.name, token), client_id=client_id)))
        elif kind == "adopt":
            client_id = str(what)
            known = gateway.claims.elsewhere(client_id)
            if known is not None and not gateway.claims.unheard(client_id):
                gateway.claims.claiming(client_id, token, "")
                adopted = claim(gateway.name, token, client_id=client_id, online=False, adopts=known.epoch)
                log.append((client_id, adopted))
        elif kind == "leave":
            client_id = str(what)
            known = gateway.claims.holders.get(client_id)
            if client_id in gateway.connected and not gateway.claims.unheard(client_id) and known is not None:
                del gateway.connected[client_id]
                if known.gateway == gateway.name:  # as the book does; a sleeper doesn't know better
                    left = claim(gateway.name, token, client_id=client_id, online=False, epoch=known.epoch)
                    log.append((client_id, left))
        elif kind == "read":
            gateway.catch_up(log, gateway.read + int(str(what)))
        else:  # a crash: everything in memory is gone, the log is read from its beginning
            crowd[index] = Gateway(gateway.name, Claims(gateway.name))
    for gateway in crowd:
        gateway.catch_up(log, len(log))
    for gateway in crowd:  # all that it claimed was read
        assert gateway.claims.kept("") == len(gateway.claims.holders)
    for client_id in CLIENTS:
        holders = {gateway.claims.holders.get(client_id) for gateway in crowd}
        assert len(holders) == 1
        (found,) = holders
        stay = [gateway.name for gateway in crowd if client_id in gateway.connected]
        assert len(stay) <= 1
        assert not stay or (found is not None and found.gateway == stay[0])
        if found is not None:  # the epoch is the newest claim that counts
            offset = found.epoch
            assert log[offset][0] == client_id and log[offset][1].gateway == found.gateway
