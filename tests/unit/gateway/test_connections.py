"""How many connections one principal may have, and how many sessions may be kept for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from gateway.contract import Presence
from gateway.counters import Counters
from gateway.mqtt.fanout import Fanout
from gateway.peers.claims import Claims
from gateway.policy import UNRESTRICTED
from gateway.ports import OFFLINE_FOR_EVER, Ending, Opened, Receipt, Refused, Session, SessionState, settled
from gateway.registry import Registry
from gateway.sessions.mailbox import Mailbox
from gateway.sessions.sessions import Nobody, Sessions
from tests.unit.gateway.parts import FakeSession


def sessions_of(claims: Claims, clock: Callable[[], float] = lambda: 0.0) -> Sessions:
    book: Any = SimpleNamespace(claim_durably=lambda presence, fresh: ("token", settled()), note=lambda presence: None)
    nothing: Any = None
    return Sessions(
        gateway="here",
        registry=Registry(),
        fanout=Fanout(lambda session, topic: True, lambda *what: None),
        counters=Counters(),
        clock=clock,
        inbox=nothing,
        records=nothing,
        wills=SimpleNamespace(due={}),  # type: ignore[arg-type]  # no will here
        claims=claims,
        book=book,
        presence=lambda session, online, reason: nothing,
        held=lambda: True,
        cares=lambda client_id: True,
        alone=lambda: True,
    )


class Arriving(Nobody):
    """Every session comes."""

    def expect(self, session: Session, token: str) -> Receipt[Opened]:
        return settled(Opened(present=True))


class Coming:
    """Sessions on their way, which come with this receipt."""

    def __init__(self, receipt: Receipt[Opened]) -> None:
        self._receipt = receipt

    def __contains__(self, client_id: str) -> bool:
        return False

    def expect(self, session: Session, token: str) -> Receipt[Opened]:
        return self._receipt


def limited(client_id: str, connections: int = 2) -> FakeSession:
    session = FakeSession(client_id, "pump")
    session.identity = replace(session.identity, limits=replace(session.identity.limits, connections=connections))
    return session


def kept(client_id: str, sessions: int = 2, *, expiry: int = 60) -> FakeSession:
    session = FakeSession(client_id, "pump", expiry=expiry)
    session.identity = replace(session.identity, limits=replace(session.identity.limits, sessions=sessions))
    return session


def opens(sessions: Sessions, session: FakeSession) -> bool:
    failure = sessions.open(session).failure
    assert failure is None or (isinstance(failure, Refused) and failure.code == 0x97)
    return failure is None


def closed(sessions: Sessions, session: FakeSession) -> None:
    sessions.closed(session, Ending(will=False, reason="", session_expiry=0, state=SessionState()))


def test_a_thousand_client_ids_one_after_another_leave_nothing_behind() -> None:
    sessions = sessions_of(Claims("here"))
    for number in range(1000):
        session = limited(f"c{number}")
        assert opens(sessions, session)
        closed(sessions, session)
    assert not sessions._named and not sessions.live


def test_who_takes_its_own_place_is_no_further_connection() -> None:
    sessions = sessions_of(Claims("here"))
    first, second = limited("one"), limited("two")
    assert opens(sessions, first) and opens(sessions, second)
    assert not opens(sessions, limited("three"))
    again = limited("one")
    first.close = lambda *what, **more: closed(sessions, first)  # type: ignore[method-assign]  # as a session does
    assert opens(sessions, again)
    closed(sessions, second)
    assert opens(sessions, limited("three"))


def test_connections_at_other_gateways_count_until_they_end() -> None:
    claims = Claims("here")
    sessions = sessions_of(claims)
    there = Presence(client_id="there", online=True, since=0.0, gateway="elsewhere", principal="pump", token="t")
    claims.hear("there", there, 1)
    claims.hear("there", replace(there, since=1.0, epoch=1), 2)  # says more of the same
    assert opens(sessions, limited("one"))
    assert not opens(sessions, limited("two"))
    claims.hear("there", replace(there, online=False, epoch=1), 3)
    assert opens(sessions, limited("two"))
    assert not claims.connected_elsewhere("pump")


def test_no_more_sessions_are_kept_than_may_be_and_those_that_are_come_back() -> None:
    claims = Claims("here")
    sessions = sessions_of(claims)
    for offset, (client_id, gateway) in enumerate((("one", "here"), ("two", "elsewhere"))):
        there = Presence(client_id=client_id, online=False, since=0.0, gateway=gateway, principal="pump", token="t")
        claims.hear(client_id, replace(there, clean=False), offset)
    assert not opens(sessions, kept("three"))
    assert sessions.live == {}, "nothing is left of it"
    sessions.arrivals = Arriving()
    for session in (kept("3", expiry=0), kept("3", sessions=3), kept("4", sessions=0), kept("one"), kept("two")):
        assert opens(sessions, session)


def test_each_session_ends_at_its_time_whichever_came_first() -> None:
    now = 0.0
    sessions = sessions_of(Claims("here"), lambda: now)
    ended: list[str] = []

    def end(mailbox: Mailbox) -> None:
        ended.append(mailbox.client_id)
        del sessions.mailboxes[mailbox.client_id]

    sessions.end = end  # type: ignore[method-assign]  # a log of it

    def away(client_id: str, since: float, expiry: int) -> Mailbox:
        mailbox = Mailbox(client_id, "pump", UNRESTRICTED, limit=5, keeper=None)  # type: ignore[arg-type]  # not asked
        mailbox.disconnected_at, mailbox.expiry = since, expiry
        sessions.keep(mailbox)
        return mailbox

    away("last", 0.0, 60)
    away("never", 0.0, OFFLINE_FOR_EVER)
    back = away("back", 0.0, 10)
    now = 5.0
    sessions.sweep()
    away("first", 5.0, 2)
    back.disconnected_at = None
    for moment, expected in ((6.9, []), (7.0, ["first"]), (50.0, ["first"]), (60.0, ["first", "last"])):
        now = moment
        sessions.sweep()
        assert ended == expected


def test_a_device_whose_session_does_not_come_in_time_is_not_connected() -> None:
    claims = Claims("here")
    there = Presence(
        client_id="mine", online=False, since=0.0, gateway="elsewhere", principal="pump", clean=False, token="t"
    )
    claims.hear("mine", there, 1)
    sessions, said = sessions_of(claims), []
    sessions._book.note = lambda presence: said.append(presence)  # type: ignore[method-assign]  # is a stand-in
    sessions._presence = lambda session, online, reason: replace(there, gateway="here", online=online)
    coming: Receipt[Opened] = Receipt()
    sessions.arrivals = Coming(coming)
    assert sessions.open(limited("mine")) is coming and "mine" in sessions.live
    coming.fail(Refused(0x88, "the session is still kept by another gateway"))
    assert not sessions.live and not sessions._named
    assert [each.online for each in said] == [False]
