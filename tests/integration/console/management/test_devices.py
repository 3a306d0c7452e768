"""Devices, bans and policies: the row, the record that gateways follow, the audit entry, and a broker that is away."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from console import audit, outbox
from console.accounts.models import User
from console.accounts.permissions import PermissionRefused
from console.audit.models import Entry
from console.devices import actions, presence, refusals
from console.devices.models import Device, Presence, Refusal
from console.outbox.models import Pending
from console.policies import actions as policies
from console.policies.models import Policy
from gateway import contract, passwords
from gateway.why import Why

from .conftest import Broker

Newest = Callable[[str], dict[bytes, bytes | None]]
Commit = Any
HTMX = {"HX-Request": "true"}


def named(text: str) -> str:
    return f"{text}-{uuid.uuid4().hex[:8]}"


def held(newest: Newest, name: str) -> contract.Device:
    value = newest(contract.DEVICES)[name.encode()]
    assert value is not None
    return contract.decode(contract.Device, value)


def test_an_added_device_reaches_the_topic_with_a_hash_that_fits_the_password_shown(
    broker: Broker, as_operator: Client, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name = named("pump")
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_operator.post(
            reverse("console:device-add"),
            {"name": name, "client_id": "c-" + name, "labels": "hall-3, wet"},
            headers=HTMX,
        )
    secret = answer.context["secret"]
    record = held(newest, name)
    assert (record.name, record.client_id, record.enabled) == (name, "c-" + name, True)
    assert passwords.verify(record.credentials[0], secret.encode())
    assert not passwords.verify(record.credentials[0], b"another")
    assert secret not in newest(contract.DEVICES)[name.encode()].decode()  # type: ignore[union-attr]  # held
    assert outbox.waiting() == 0
    entry = Entry.objects.get(kind="device", name=name)
    assert (entry.action, entry.actor, entry.outcome) == ("device.create", "the-operator", "done")
    assert secret not in str(vars(entry))
    assert Device.objects.get(name=name).labels == ["hall-3", "wet"]


def test_rotating_revoking_disabling_and_deleting_follow_in_the_topic(
    broker: Broker, operator: User, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name = named("valve")
    with django_capture_on_commit_callbacks(execute=True):
        first = actions.add(actor=operator, name=name)
    device = Device.objects.get(name=name)
    with django_capture_on_commit_callbacks(execute=True):
        second = actions.rotate(actor=operator, device=device)
    credential = held(newest, name).credentials[0]
    assert passwords.verify(credential, second.encode())
    assert not passwords.verify(credential, first.encode())
    with django_capture_on_commit_callbacks(execute=True):
        actions.enable(actor=operator, device=device, enabled=False)
        actions.revoke(actor=operator, device=device)
    record = held(newest, name)
    assert (record.enabled, record.credentials) == (False, ())
    with django_capture_on_commit_callbacks(execute=True):
        actions.delete(actor=operator, device=device)
    assert newest(contract.DEVICES)[name.encode()] is None


def test_what_a_device_signs_in_with_and_may_use_is_asked_for_shown_and_reaches_the_topic(
    broker: Broker, as_operator: Client, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name, subject = named("press"), named("CN of press")
    given = {"name": name, "subject": subject, "connections": "2", "messages_rate": "50", "packet_size": "4096"}
    with django_capture_on_commit_callbacks(execute=True):
        answer = as_operator.post(reverse("console:device-add"), given, headers=HTMX)
    record, secret = held(newest, name), answer.context["secret"]
    assert record.subject == subject
    assert record.limits == contract.DeviceLimits(connections=2, messages_rate=50, packet_size=4096)
    assert passwords.scram_of(record.credentials, "sha256") is not None, "it may sign in by SCRAM too"
    page = as_operator.get(reverse("console:device", args=[name])).content.decode()
    assert subject in page and "4,096" in page and secret not in page

    refused = as_operator.post(
        reverse("console:device-add"), {"name": named("other"), "subject": subject, "queue": "0"}, headers=HTMX
    )
    assert refused.status_code == 422 and "queue" in refused.context["form"].errors
    refused = as_operator.post(
        reverse("console:device-add"), {"name": named("other"), "subject": subject}, headers=HTMX
    )
    assert refused.status_code == 422 and "subject" in refused.context["form"].errors

    shown = as_operator.get(reverse("console:device-edit", args=[name]), headers=HTMX).context["form"]
    assert (shown["subject"].value(), shown["connections"].value(), shown["queue"].value()) == (subject, 2, None)
    with django_capture_on_commit_callbacks(execute=True):
        changed = as_operator.post(reverse("console:device-edit", args=[name]), {"queue": "7"}, headers=HTMX)
    assert changed.status_code == 204
    record = held(newest, name)
    assert (record.subject, record.limits) == ("", contract.DeviceLimits(queue=7))


def test_a_person_may_choose_a_devices_password_and_it_is_kept_slowly_hashed(
    broker: Broker, as_operator: Client, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name = named("panel")
    with django_capture_on_commit_callbacks(execute=True):
        as_operator.post(reverse("console:device-add"), {"name": name}, headers=HTMX)
    rotate = reverse("console:device-rotate", args=[name])
    assert as_operator.post(rotate, {"password": "short"}, headers=HTMX).status_code == 422
    with django_capture_on_commit_callbacks(execute=True):
        assert as_operator.post(rotate, {"password": " correct horse "}, headers=HTMX).status_code == 204
    (credential,) = held(newest, name).credentials
    assert credential.kind == "argon2id" and passwords.verify(credential, b" correct horse ")
    assert "correct horse" not in str(list(Entry.objects.filter(name=name).values()))
    with django_capture_on_commit_callbacks(execute=True):
        secret = as_operator.post(rotate, {"password": ""}, headers=HTMX).context["secret"]
    assert passwords.verify(held(newest, name).credentials[0], secret.encode())


def test_a_client_id_belongs_to_one_device(broker: Broker, operator: User) -> None:
    name = named("first")
    actions.add(actor=operator, name=name, client_id=name + "-id")
    with pytest.raises(actions.ClientIdTaken):
        actions.add(actor=operator, name=named("second"), client_id=name + "-id")
    with pytest.raises(actions.ClientIdTaken):
        actions.add(actor=operator, name=named("third"), client_id=name)


def test_changes_made_while_the_broker_is_away_wait_and_go_out_newest_only(
    running_broker: Broker,
    tmp_path: Any,
    operator: User,
    request: pytest.FixtureRequest,
    django_capture_on_commit_callbacks: Commit,
) -> None:
    request.getfixturevalue("no_broker")
    name = named("remote")
    with django_capture_on_commit_callbacks(execute=True):
        actions.add(actor=operator, name=name)
    device = Device.objects.get(name=name)
    with django_capture_on_commit_callbacks(execute=True):
        secret = actions.rotate(actor=operator, device=device)
    waiting = Pending.objects.get(topic=contract.DEVICES, key=name)
    assert (waiting.version, waiting.attempts) == (2, 2)
    assert waiting.error
    assert "1 change" in page_of(request, "console:device-list")
    request.getfixturevalue("broker")
    assert outbox.drain() == 1
    newest = request.getfixturevalue("newest")
    assert passwords.verify(held(newest, name).credentials[0], secret.encode())
    assert not Pending.objects.exists()


def page_of(request: pytest.FixtureRequest, view: str) -> str:
    client: Client = request.getfixturevalue("as_viewer")
    return client.get(reverse(view)).content.decode()


def test_a_value_that_another_process_is_publishing_is_left_to_it_and_published_again_when_newer(
    broker: Broker, newest: Newest, django_capture_on_commit_callbacks: Commit, monkeypatch: pytest.MonkeyPatch
) -> None:
    from console import kafka
    from console.outbox import delivery

    name, sent = named("raced"), kafka.send

    def meanwhile(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(kafka, "send", sent)
        with django_capture_on_commit_callbacks(execute=True):
            outbox.put(contract.BANS, name, b"newer")  # its own delivery finds the row held
        return sent(*args, **options)

    monkeypatch.setattr(kafka, "send", meanwhile)
    with django_capture_on_commit_callbacks(execute=True):
        outbox.put(contract.BANS, name, b"older")
    assert newest(contract.BANS)[name.encode()] == b"newer"
    assert not Pending.objects.exists()
    assert delivery.waiting() == 0


def test_bans_reach_their_compacted_topic_and_are_lifted_by_a_tombstone(
    broker: Broker, as_operator: Client, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    value = named("intruder")
    with django_capture_on_commit_callbacks(execute=True):
        as_operator.post(reverse("console:device-ban"), {"kind": "client", "value": value, "lasts": "0", "reason": "x"})
    key = f"client:{value}".encode()
    record = newest(contract.BANS)[key]
    assert record is not None
    assert contract.decode(contract.Ban, record) == contract.Ban(kind="client", value=value, reason="x")
    from console.devices.models import Ban

    with django_capture_on_commit_callbacks(execute=True):
        as_operator.post(reverse("console:device-ban-lift", args=[Ban.objects.get(value=value).pk]))
    assert newest(contract.BANS)[key] is None


def test_a_kick_is_an_order_on_the_control_topic(broker: Broker, as_operator: Client, newest: Newest) -> None:
    client_id = named("noisy")
    from console.outbox.delivery import _ensure

    _ensure(contract.CONTROL)
    as_operator.post(reverse("console:device-kick", args=[client_id]))
    value = newest(contract.CONTROL)[client_id.encode()]
    assert value is not None
    order = contract.decode(contract.Control, value)
    assert (order.verb, order.client_id, order.actor) == ("kick", client_id, "the-operator")


def seen(client_id: str, **other: Any) -> contract.Presence:
    fields: dict[str, Any] = {"online": True, "since": datetime.now(UTC).timestamp(), "gateway": "g1"}
    return contract.Presence(client_id=client_id, **{**fields, **other})


def test_presence_is_kept_by_client_and_shown_with_its_device(
    db: None, operator: User, as_viewer: Client, no_broker: None
) -> None:
    name = named("seen")
    Device.objects.create(name=name)
    presence.keep({"c1": seen("c1", principal=name, address="10.0.0.9:4711"), "c2": seen("c2"), "c3": seen("c3")})
    presence.keep({"c1": seen("c1", principal=name, online=False, reason="timeout"), "c2": None})
    assert set(Presence.objects.values_list("client_id", "online")) == {("c1", False), ("c3", True)}
    presence.keep({"c1": seen("c1", principal=name, address="10.0.0.10:4711")})
    listing = as_viewer.get(reverse("console:device-list"), {"state": "online"})
    assert [row.name for row in listing.context["list"].rows] == [name]
    assert "10.0.0.10:4711" in listing.content.decode()
    assert "10.0.0.10:4711" in as_viewer.get(reverse("console:device", args=[name])).content.decode()
    assert presence.forget_others({"c1"}) == 1
    assert list(Presence.objects.values_list("client_id", flat=True)) == ["c1"]


def test_a_client_s_page_tells_what_waits_for_it_and_nothing_where_nothing_is_kept(
    db: None, as_viewer: Client, no_broker: None
) -> None:
    told = {"queued": 3, "queued_bytes": 2048, "dropped": 41, "expired": 5, "missing": 6}
    presence.keep({"away": seen("away", online=False, clean=False, **told), "here": seen("here")})
    page = as_viewer.get(reverse("console:device-client", args=["away"])).content.decode()
    for shown in ("2.0 KiB", ">41<", ">5<", ">6<"):
        assert shown in page
    assert "2.0 KiB" in as_viewer.get(reverse("console:device-clients"), {"state": "all"}).content.decode()
    here = as_viewer.get(reverse("console:device-client", args=["here"])).content.decode()
    assert "Its session ends with its connection" in here
    assert "Queued bytes" not in here
    assert as_viewer.get(reverse("console:device-client", args=["nobody"])).status_code == 404


def closed(kind: str, name: str, detail: str, *, count: int = 1, at: float = 1.7e9, why: str = "") -> list[Any]:
    """As gateways report it, in the order of CLOSED_FIELDS."""
    return [kind, name, name, "192.0.2.7", detail, count, at, why]


def test_refused_connections_are_counted_once_and_explained_where_one_looks(
    db: None, as_viewer: Client, no_broker: None
) -> None:
    name = named("locked-out")
    device = Device.objects.create(name=name, enabled=False)
    wrong = closed("refused-0x86", name, "whatever the gateway says", count=3, why=Why.CREDENTIALS)
    refusals.keep([wrong, closed("tls", "", "no certificate")])
    refusals.keep([wrong])  # the same report, read again
    refusals.keep([closed("refused-0x86", name, "…", at=1.7e9 + 2, why=Why.CREDENTIALS)])
    assert list(Refusal.objects.filter(username=name).values_list("count", flat=True)) == [4]
    for page in (
        as_viewer.get(reverse("console:device", args=[name])).content.decode(),
        as_viewer.get(reverse("console:device-client", args=[name])).content.decode(),
        as_viewer.get(reverse("console:device-refused"), {"q": name}).content.decode(),
        as_viewer.get(reverse("console:device-refused"), {"q": "WRONG password"}).content.decode(),
    ):
        assert "or give it a new password" in page
        assert "192.0.2.7" in page
        assert "TLS could not be set up" not in page
    listed = as_viewer.get(reverse("console:device-list"), {"state": "refused"}).context["list"].rows
    assert [row.name for row in listed] == []
    refusals.keep([closed("refused-0x86", name, "…", at=time.time(), why=Why.CREDENTIALS)])
    listed = as_viewer.get(reverse("console:device-list"), {"state": "refused"}).context["list"].rows
    assert [row.name for row in listed] == [name]
    assert "What keeps it out" in as_viewer.get(reverse("console:device", args=[name])).content.decode()
    assert refusals.of_device(device)[0].explained.why == "Unknown user name or wrong password"


def test_what_differs_in_its_reason_alone_is_told_apart_and_older_gateways_are_understood(
    db: None, as_viewer: Client, no_broker: None
) -> None:
    disabled = closed("refused-0x87", "pump", "the device is disabled", why=Why.DISABLED)
    owned = closed("refused-0x87", "pump", "…", why=Why.SESSION_OWNER)
    older = closed("refused-0x87", "pump", "in its own words")[:-1]
    door = closed("http-denied", "pump", "not allowed to publish to a/b")
    refusals.keep([disabled, owned, older, door])
    page = as_viewer.get(reverse("console:device-refused")).content.decode()
    for said in (
        "The device is disabled",
        "belongs to somebody else",
        "in its own words",
        "No policy allows that topic",
        "not allowed to publish to a/b",
        "HTTP",
    ):
        assert said in page
    chinese = as_viewer.get(reverse("console:device-refused"), headers={"Accept-Language": "zh-hans"}).content.decode()
    assert "设备已停用" in chinese
    found = (
        as_viewer.get(reverse("console:device-refused"), {"q": "已停用"}, headers={"Accept-Language": "zh-hans"})
        .context["list"]
        .rows
    )
    assert [row.why for row in found] == [Why.DISABLED]
    sheet = as_viewer.get(reverse("console:device-refused"), {"format": "csv"})
    assert "session-owner" in b"".join(sheet.streaming_content).decode()  # type: ignore[attr-defined]  # it streams


def test_refused_connections_are_bounded(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "KEPT", 5)
    refusals.keep([closed("refused-0x86", f"c{number}", "no", at=1.7e9 + number) for number in range(20)])
    assert set(Refusal.objects.values_list("client_id", flat=True)) == {f"c{number}" for number in range(15, 20)}


def test_hostile_names_are_shown_as_text(db: None, as_operator: Client, no_broker: None) -> None:
    evil = "<script>alert(1)</script>"
    Device.objects.create(name=f"x{evil.replace('/', '')}", note=evil, labels=["<b>"])
    presence.keep({evil: seen(evil, principal="<i>p</i>", reason=evil, address=evil[:20])})
    refusals.keep([closed("refused-0x86", evil, evil)])
    for view in ("console:device-list", "console:device-clients", "console:device-refused"):
        page = as_operator.get(reverse(view)).content.decode()
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page
        assert "<i>p</i>" not in page


def test_names_that_gateways_would_refuse_are_refused(db: None, as_operator: Client, no_broker: None) -> None:
    for name in ("a/b", "a+", "#", "$gateway/x", ""):
        answer = as_operator.post(reverse("console:device-add"), {"name": name})
        assert answer.status_code == 422, name
    assert not Device.objects.exists()


def test_a_viewer_manages_nothing(db: None, viewer: User, as_viewer: Client, no_broker: None) -> None:
    for attempt in (
        lambda: actions.add(actor=viewer, name="x"),
        lambda: actions.kick(actor=viewer, client_id="x"),
        lambda: actions.ban(actor=viewer, kind="client", value="x"),
        lambda: policies.create(actor=viewer, name="x", values={}),
    ):
        with pytest.raises(PermissionRefused):
            attempt()
    assert as_viewer.post(reverse("console:device-add"), {"name": "x"}).status_code == 403
    assert not Entry.objects.exists()


def test_the_command_line_adds_a_device_and_lists_it(
    broker: Broker, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name, said = named("cli"), StringIO()
    with django_capture_on_commit_callbacks(execute=True):
        call_command("device", "add", name, "--password-stdout", stdout=said)
    assert passwords.verify(held(newest, name).credentials[0], said.getvalue().strip().encode())
    said = StringIO()
    call_command("device", "list", stdout=said)
    assert f"{name}\toffline" in said.getvalue()
    assert Entry.objects.get(name=name).actor == "system:manage.py"
    assert audit.system("x").is_active


def test_the_simulator_answers_as_the_gateway_would(
    broker: Broker, admin: User, as_viewer: Client, newest: Newest, django_capture_on_commit_callbacks: Commit
) -> None:
    name, policy = named("meter"), named("meters")
    asked = {"device": name, "verb": "publish", "topic": f"site/a/{name}/state"}
    open_to_all = as_viewer.get(reverse("console:policy-try"), asked).context["verdict"]
    assert (open_to_all.allowed, open_to_all.unrestricted) == (True, True)
    with django_capture_on_commit_callbacks(execute=True):
        policies.create(
            actor=admin,
            name=policy,
            values={"publish": ["site/+/%c/#"], "subscribe": ["cmd/#"], "deny_subscribe": ["cmd/secret/#"]},
        )
        actions.add(actor=admin, name=name, policies=[Policy.objects.get(name=policy)])

    def verdict(**changes: str) -> Any:
        return as_viewer.get(reverse("console:policy-try"), {**asked, **changes}).context["verdict"]

    allowed = verdict()
    assert (allowed.allowed, allowed.policy, allowed.filter) == (True, policy, f"site/+/{name}/#")
    assert not verdict(topic="site/a/other/state").allowed
    assert not verdict(device="").allowed
    subscription = verdict(verb="subscribe", topic="cmd/#")
    assert (subscription.allowed, subscription.conditional) == (True, True)
    assert not verdict(verb="receive", topic="cmd/secret/x").allowed
    assert not verdict(topic="a/#").fits
    record = newest(contract.POLICIES)[policy.encode()]
    assert record is not None
    assert contract.decode_policy(record) == Policy.objects.get(name=policy).record()
    assert held(newest, name).policies == (policy,)
    with pytest.raises(policies.InUse):
        policies.delete(actor=admin, policy=Policy.objects.get(name=policy))


def test_a_malformed_filter_is_refused_where_it_is_typed(db: None, as_admin: Client, no_broker: None) -> None:
    answer = as_admin.post(reverse("console:policy-create"), {"name": "p", "publish": "ok/#\nbad/#/x"})
    assert answer.status_code == 422
    assert "bad/#/x" in answer.content.decode()
    assert not Policy.objects.exists()


def test_two_connections_that_throw_each_other_out_are_told_on_the_client_s_page_and_refuse_no_device(
    as_viewer: Client,
) -> None:
    now = time.time()
    Device.objects.create(name="pump")
    presence.keep({"c1": contract.Presence(client_id="c1", online=True, since=1.0, gateway="g", principal="pump")})
    rows = [["taken-over", "c1", "pump", f"10.0.0.{n}", "session taken over", 3, now, Why.TAKEN_OVER] for n in (1, 2)]
    refusals.keep(rows)
    page = as_viewer.get(reverse("console:device-client", args=["c1"])).content.decode()
    assert "Its connection was taken over 6 times." in page
    assert "10.0.0.2" in page
    assert not Device.objects.with_presence().get(name="pump").refused
    Refusal.objects.update(last=datetime.fromtimestamp(now - 7200, UTC))
    assert "was taken over" not in as_viewer.get(reverse("console:device-client", args=["c1"])).content.decode()


def test_a_device_that_never_connected_has_a_page_that_says_what_is_seen_of_publishing_by_http(
    as_operator: Client,
) -> None:
    Device.objects.create(name="poster")
    for name in ("console:device-client", "console:device-tap"):
        assert "What publishes by HTTP has none" in as_operator.get(reverse(name, args=["poster"])).content.decode()
    assert as_operator.get(reverse("console:device-client", args=["nobody"])).status_code == 404


def test_the_top_bar_finds_devices_and_clients_the_nearest_first_and_each_once(as_viewer: Client) -> None:
    for name in ("pump-in-hall-7", "pump-7", "valve"):
        Device.objects.create(name=name)
    for client_id in ("pump-7", "pump/<b>", "other"):
        found = contract.Presence(client_id=client_id, online=False, since=1.0, gateway="g")
        presence.keep({client_id: found})
    answer = as_viewer.get(reverse("console:search"), {"q": "PUMP"})
    assert [(hit.kind, hit.name) for hit in answer.context["hits"]] == [
        ("Device", "pump-7"),
        ("Device", "pump-in-hall-7"),
        ("Client", "pump/<b>"),
    ]
    assert "pump/&lt;b&gt;" in answer.content.decode()
    assert as_viewer.get(answer.context["hits"][2].url).status_code == 200
    assert [hit.name for hit in as_viewer.get(reverse("console:search"), {"q": "hall pump"}).context["hits"]] == [
        "pump-in-hall-7"
    ]
