"""Every word that gateways tell is explained, and what is new or old is shown as it came."""

from __future__ import annotations

from pathlib import Path

import gateway
from console.devices.reasons import BROKEN, ENDS, REASONS, ending, explained
from gateway.why import Why


def test_every_word_that_a_gateway_can_tell_has_an_explanation_and_an_advice() -> None:
    assert [word for word in Why if word not in REASONS or not REASONS[word].advice] == []


def test_the_word_decides_and_without_one_the_kind_does() -> None:
    assert explained("refused-0x87", Why.DISABLED, "anything at all").why == "The device is disabled"
    assert explained("http-denied", Why.DISABLED, "…").why == "The device is disabled"
    assert explained("http-denied", "", "not allowed").why == "No policy allows that topic"
    assert explained("tls", "", "handshake failed").more
    assert explained("0x82", "", "a second CONNECT") is BROKEN


def test_what_is_not_known_is_shown_in_the_gateways_own_words() -> None:
    assert explained("refused-0x97", "", "something new").why == "something new"
    assert explained("refused-0x97", "a-word-of-tomorrow", "").why == "refused-0x97"


def test_how_connections_end_is_said_for_people_where_gateways_still_say_it_so() -> None:
    source = "".join(path.read_text() for path in Path(gateway.__file__).parent.rglob("*.py"))
    assert [reason for reason in ENDS if f'"{reason}"' not in source] == []
    assert ending("keep alive") == "nothing came for longer than its keep alive"
    assert ending("protocol error: <b>") == "protocol error: <b>"
