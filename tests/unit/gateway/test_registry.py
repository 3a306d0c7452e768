"""Devices, policies, routes and bans as the compacted topics have them."""

import json

import pytest

from gateway import contract, passwords
from gateway.contract import BANS, DEVICES, POLICIES, ROUTES, Ban, Credential, Device, MalformedRecord, UnknownVersion
from gateway.policy import Policy
from gateway.registry import BanSet, DeviceChanged, Registry, RightsChanged, RoutesChanged
from gateway.routes import Downlink, Uplink


def put(registry: Registry, topic: str, record: object, key: str = "") -> object:
    name = key or getattr(record, "name", None) or record.key  # type: ignore[attr-defined]  # a Ban has a key
    return registry.apply(topic, name.encode(), contract.encode(record))


def test_a_device_is_known_by_its_record_and_gone_with_its_tombstone() -> None:
    registry = Registry()
    assert put(registry, DEVICES, Device(name="d1")) == DeviceChanged("d1", False)
    assert "d1" in registry.devices
    assert registry.apply(DEVICES, b"d1", None) == DeviceChanged("d1", True)
    assert registry.devices == {}


@pytest.mark.parametrize(
    "change",
    [
        Device(name="d1", enabled=False, credentials=(Credential(kind="blake2b", hash="aa"),)),
        Device(name="d1", credentials=(Credential(kind="blake2b", hash="bb"),)),
        Device(name="d1", credentials=(Credential(kind="blake2b", hash="aa"),), client_id="other"),
    ],
)
def test_a_change_of_what_a_device_signed_in_with_revokes(change: Device) -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1", credentials=(Credential(kind="blake2b", hash="aa"),)))
    assert put(registry, DEVICES, change) == DeviceChanged("d1", True)


def test_another_policy_for_a_device_does_not_revoke() -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1"))
    assert put(registry, DEVICES, Device(name="d1", policies=("p",))) == DeviceChanged("d1", False)
    assert put(registry, DEVICES, Device(name="d1", policies=("p",))) is None


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"v": 2, "name": "d1"}', b'{"v": 1}', b'{"v":1,"name":"x"}'])
def test_an_unreadable_device_is_nobody(value: bytes) -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1"))
    assert registry.apply(DEVICES, b"d1", value) == DeviceChanged("d1", True)
    assert registry.devices == {} and (DEVICES, "d1") in registry.broken


def test_an_unreadable_policy_exists_and_allows_nothing() -> None:
    registry = Registry()
    assert registry.rights("", "c").may_publish("a")
    assert registry.apply(POLICIES, b"p", b"garbage") == RightsChanged()
    assert not registry.rights("", "c").may_publish("a")


def test_policies_for_everyone_apply_beside_the_devices_own() -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1", policies=("own",)))
    put(registry, POLICIES, Policy(name="own", publish=("own/%u",)))
    put(registry, POLICIES, Policy(name="all", publish=("all",), everyone=True))
    named = registry.rights("d1", "c")
    assert named.may_publish("own/d1") and named.may_publish("all")
    anonymous = registry.rights("", "c")
    assert anonymous.may_publish("all") and not anonymous.may_publish("own/d1")


def test_a_device_whose_policy_was_deleted_stays_restricted() -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1", policies=("p",)))
    put(registry, POLICIES, Policy(name="p", publish=("a",)))
    registry.apply(POLICIES, b"p", None)
    assert not registry.rights("d1", "c").may_publish("a")
    assert registry.rights("", "c").may_publish("a")


def test_routes_come_and_go() -> None:
    registry = Registry()
    assert put(registry, ROUTES, Uplink(name="r", filter="a/#", topic="t")) == RoutesChanged()
    put(registry, ROUTES, Downlink(name="d", topic="down", mqtt_topic="x"))
    assert registry.table.find("a/b").topic == "t" and list(registry.downlinks) == ["down"]
    registry.apply(ROUTES, b"r", None)
    registry.apply(ROUTES, b"d", None)
    assert registry.table.find("a/b").topic == "mqtt.messages" and not registry.downlinks


def test_a_broken_route_is_left_out_and_remembered() -> None:
    registry = Registry()
    put(registry, ROUTES, Uplink(name="r", filter="a/#/b"))
    assert registry.table.routes == () and (ROUTES, "r") in registry.broken


def test_a_ban_keeps_out_until_it_ends() -> None:
    registry = Registry()
    ban = Ban(kind="client", value="c1", until=100.0)
    assert put(registry, BANS, ban) == BanSet(ban)
    assert registry.banned("c1", "", "1.2.3.4", 99.0) == ban
    assert registry.banned("c1", "", "1.2.3.4", 101.0) is None
    assert registry.banned("c2", "", "1.2.3.4", 99.0) is None
    put(registry, BANS, Ban(kind="address", value="1.2.3.4"))
    assert registry.banned("c2", "", "1.2.3.4", 1e12) is not None


def test_an_unreadable_ban_bans() -> None:
    registry = Registry()
    registry.apply(BANS, b"client:c1", b"garbage")
    assert registry.banned("c1", "", "", 0.0) is not None


def test_a_client_id_belongs_to_the_device_bound_to_it_or_of_its_name() -> None:
    registry = Registry()
    put(registry, DEVICES, Device(name="d1", client_id="meter-7"))
    assert registry.holder("meter-7") == "d1" and registry.holder("d1") == "d1" and registry.holder("x") is None


def test_unknown_fields_are_ignored_and_unknown_versions_refused() -> None:
    value = json.loads(contract.encode(Device(name="d1")))
    assert contract.decode(Device, json.dumps(value | {"new": 1}).encode()) == Device(name="d1")
    with pytest.raises(UnknownVersion):
        contract.decode(Device, json.dumps(value | {"v": 9}).encode())
    with pytest.raises(MalformedRecord):
        contract.decode(Device, json.dumps(value | {"policies": "p"}).encode())


def test_a_generated_secret_verifies_and_no_other() -> None:
    secret, credential = passwords.generate()
    assert secret not in credential.hash and not passwords.slow(credential)
    assert passwords.verify(credential, secret.encode())
    assert not passwords.verify(credential, b"x" + secret.encode())
    assert not passwords.verify(Credential(kind="blake2b", hash="zz", salt="zz"), b"")
    assert not passwords.verify(Credential(kind="blake2b", hash="", salt=""), b"")
    assert not passwords.verify(Credential(kind="plain", hash=secret), secret.encode())


def test_a_persons_password_verifies_slowly() -> None:
    credential = passwords.from_password("correct horse")
    assert passwords.slow(credential) and passwords.verify(credential, b"correct horse")
    assert not passwords.verify(credential, b"wrong horse")
    with pytest.raises(passwords.WeakPassword):
        passwords.from_password("short")
