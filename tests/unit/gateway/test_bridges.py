"""Bridges without a network: where topics go, what can't loop, secrets that open for what they are for."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway import contract
from gateway.bridges import Bridge, problems
from gateway.policy import matches, well_formed
from gateway.sealing import BadSealingKey, Unsealable, load_key, seal, unseal

GOOD = Bridge(
    name="up",
    address="mqtts://broker.example:8883",
    client_id="c",
    inbound=("commands/#",),
    local_prefix="in/",
    outbound=("plant/#", "in/#"),
    remote_prefix="site/",
)
LEVELS = st.lists(st.sampled_from(["a", "b", "+"]), min_size=1, max_size=3).map("/".join)
FILTERS = st.one_of(LEVELS, st.just("#"), LEVELS.map(lambda text: f"{text}/#"))
TOPICS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map("/".join)
PREFIXES = st.sampled_from(["", "a/", "b/", "a/b/"])


def test_a_sound_definition_has_no_problems_and_goes_through_its_codec() -> None:
    assert problems(GOOD) == []
    assert contract.decode(Bridge, contract.encode(GOOD)) == GOOD
    assert (GOOD.host, GOOD.port, GOOD.tls) == ("broker.example", 8883, True)
    assert replace(GOOD, address="mqtt://[::1]").port == 1883


def test_topics_get_their_prefixes_and_what_is_no_topic_stays_out() -> None:
    assert GOOD.local_topic("commands/x") == "in/commands/x"
    assert GOOD.remote_topic("plant/7") == "site/plant/7"
    assert GOOD.remote_topic("elsewhere") is None
    assert replace(GOOD, local_prefix="").local_topic("$SYS/x") is None
    assert GOOD.local_topic("") is None


@given(FILTERS, FILTERS, PREFIXES, TOPICS)
def test_nothing_that_an_accepted_definition_sends_can_come_in_again(
    out: str, into: str, prefix: str, topic: str
) -> None:
    bridge = replace(GOOD, inbound=(into,), outbound=(out,), remote_prefix=prefix)
    assume(well_formed(out) and well_formed(into) and not problems(bridge))
    sent = bridge.remote_topic(topic)
    assert sent is None or not matches(into, sent)


@pytest.mark.parametrize("change", [{"qos": 2}, {"client_id": ""}, {"name": ""}, {"inbound": ("$share/g/a",)}])
def test_what_cannot_work_is_said(change: dict[str, object]) -> None:
    assert problems(replace(GOOD, **change))  # type: ignore[arg-type]  # one field each


@given(st.text(), st.text())
def test_a_secret_opens_for_its_own_context_alone(secret: str, context: str) -> None:
    key = b"k" * 32
    sealed = seal(secret, key, context)
    assert unseal(sealed, key, context) == secret
    for wrong_key, wrong_context, text in (
        (b"x" * 32, context, sealed),
        (key, context + "x", sealed),
        (key, context, sealed[:-6] + "AAAAA="),
        (key, context, ""),
        (key, context, "v2:" + sealed[3:]),
        (key, context, "v1:é"),
    ):
        with pytest.raises(Unsealable):
            unseal(text, wrong_key, wrong_context)


def test_the_context_changes_with_whatever_the_password_is_for() -> None:
    changes = ({"address": "mqtts://other"}, {"username": "u"}, {"ca": "x"}, {"name": "n"})
    contexts = {GOOD.context, *(replace(GOOD, **change).context for change in changes)}  # type: ignore[arg-type]
    assert len(contexts) == 5
    assert replace(GOOD, outbound=(), keep_alive=9).context == GOOD.context


def test_the_key_is_made_once_for_its_owner_alone_or_given(tmp_path: Path) -> None:
    key = load_key(tmp_path, {})
    assert load_key(tmp_path, {}) == key
    assert stat.S_IMODE((tmp_path / "sealing_key").stat().st_mode) == 0o600
    assert load_key(tmp_path, {"SLUICE_SEALING_KEY": "ab" * 32}) == b"\xab" * 32
    with pytest.raises(BadSealingKey):
        load_key(tmp_path, {"SLUICE_SEALING_KEY": "short"})
