"""What a gateway says of a session when it is asked: once, by who holds it, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway import contract
from gateway.contract import TAP, Control, TapReport
from gateway.operations.telling import FILTERS, LATE, Telling
from gateway.policy import Rights
from gateway.ports import Message, Subscription, settled
from gateway.sessions.mailbox import Mailbox
from tests.fakes.mqtt_device import Device, subscribe
from tests.unit.gateway.test_inbox import TOPIC, World


class Asked:
    def __init__(self) -> None:
        self.world = World()
        self.live: dict[str, Any] = {}
        self.mailboxes: dict[str, Mailbox] = {}
        self.answers: list[tuple[str, TapReport]] = []
        self.telling = Telling(
            gateway="g",
            live=self.live,
            mailboxes=self.mailboxes,
            oldest=self.world.inboxes.oldest,
            write=self.write,
            clock=lambda: 1000.0,
        )

    def write(self, topic: str, value: bytes | None, key: bytes | None) -> Any:
        assert topic == TAP
        self.answers.append(((key or b"").decode(), contract.decode(TapReport, value or b"")))
        return settled()

    def mailbox(self, client_id: str, *, filters: int = 1) -> Mailbox:
        rights = Rights((), client_id, "", unrestricted=True)
        box = self.mailboxes[client_id] = Mailbox(client_id, "", rights, limit=1000, keeper=self.world.inboxes)
        box.subscriptions = {f"a/{n}": Subscription(filter=f"a/{n}", qos=1) for n in range(filters)}
        return box

    def take(self, box: Mailbox, count: int) -> None:
        for _ in range(count):
            offset = len(self.world.messages)
            self.world.messages.append((b"%d" % offset, 1))
            box.deliver(Message(f"m/{offset}", b"%d" % offset, 1, origin=(TOPIC, 0, offset)), 1, False)

    def ask(self, client_id: str = "d1", at: float = 1000.0) -> dict[str, Any] | None:
        """The answer's row."""

        async def scene() -> None:
            self.telling.tell(Control(verb="tell", client_id=client_id, at=at, tap="q1"))
            await asyncio.gather(*self.telling._tasks)

        self.world.run(scene())
        answers, self.answers = self.answers, []
        for name, report in answers:
            assert (name, report.ended, report.gateway) == ("q1", "told", "g")
        return answers[0][1].rows[0] if answers else None


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_of_a_device_that_is_away_it_says_filters_and_what_has_waited_longest_wherever_that_is(asked: Asked) -> None:
    box = asked.mailbox("d1", filters=2)
    asked.take(box, 3)
    row = asked.ask()
    assert row is not None
    assert [each["filter"] for each in row["subscriptions"]] == ["a/0", "a/1"]
    assert (row["queued"], row["in_flight"], row["oldest"]["origin"]) == (3, 0, [TOPIC, 0, 0])
    asked.world.run(asked.world.inboxes.settle([box]))
    asked.world.sync(asked.mailboxes)
    assert box.shelf.count == 3
    for _ in range(2):
        box.shelf.drop()
    row = asked.ask()
    assert row is not None
    assert (row["queued"], row["oldest"]) == (1, {"topic": "m/2", "expires_at": None, "origin": [TOPIC, 0, 2]})
    assert box.shelf.count == 1, "looking changes nothing"


def test_of_a_connected_device_without_a_kept_session_it_says_what_the_session_has(asked: Asked) -> None:
    device = Device().connected()
    device.send(subscribe(("plant/#", 1), ("$share/g/x", 0), packet_id=3))
    asked.live["d1"] = device.session
    row = asked.ask()
    assert row is not None
    assert [(each["filter"], each["qos"]) for each in row["subscriptions"]] == [("plant/#", 1), ("$share/g/x", 0)]
    assert "oldest" not in row


def test_who_does_not_hold_the_session_and_who_hears_the_question_late_say_nothing(asked: Asked) -> None:
    asked.mailbox("d1")
    assert asked.ask("another") is None
    assert asked.ask(at=1000.0 - LATE) is None
    assert asked.ask() is not None


def test_an_answer_is_bounded_and_says_how_much_it_leaves_out(asked: Asked) -> None:
    asked.mailbox("d1", filters=FILTERS + 7)
    row = asked.ask()
    assert row is not None
    assert (len(row["subscriptions"]), row["left_out"]) == (FILTERS, 7)
