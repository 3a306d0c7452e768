"""The simulator: what a device may do, decided by the gateway's own registry and policy code."""

from dataclasses import dataclass

from console.devices.models import Device
from console.policies.models import Policy
from gateway import policy as law
from gateway.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`conditional`: a subscription that is granted, while each delivery is checked against denials."""

    allowed: bool
    conditional: bool = False
    policy: str = ""
    filter: str = ""
    unrestricted: bool = False
    fits: bool = True  # whether the topic (filter) is one


def rights(principal: str, client_id: str) -> law.Rights:
    """What a device's name ("" = anonymous) and client id may do, from what is kept here now."""
    registry = Registry()
    registry.policies = {policy.name: policy.record() for policy in Policy.objects.all()}
    device = Device.objects.filter(name=principal).first() if principal else None
    if device is not None:
        registry.devices = {device.name: device.record()}
    return registry.rights(principal, client_id)


def ask(*, principal: str, client_id: str, verb: str, topic: str) -> Verdict:
    """`verb`: publish, receive (a topic name) or subscribe (a topic filter)."""
    held = rights(principal, client_id)
    if verb == "subscribe":
        plain = topic.split("/", 2)[2] if topic.startswith("$share/") and topic.count("/") >= 2 else topic
        if not law.well_formed(plain):
            return Verdict(allowed=False, fits=False)
        grant = held.subscribe(plain)
        return Verdict(
            allowed=grant is not law.Grant.DENIED,
            conditional=grant is law.Grant.CHECKED,
            unrestricted=held.unrestricted,
        )
    if not topic or "+" in topic or "#" in topic or "\x00" in topic:
        return Verdict(allowed=False, fits=False)
    decision = held.publish(topic) if verb == "publish" else held.receive(topic)
    return Verdict(
        allowed=decision.allowed,
        policy=decision.policy,
        filter=decision.filter,
        unrestricted=held.unrestricted,
    )
