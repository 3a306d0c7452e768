"""Why gateways refuse connections, in words for people, and what to do about it.

Gateways give their reasons in English (`gateway.identity.authentication`): those that are known here are translated
and come with advice, others are shown as they are.
"""

from typing import Any

from django.utils.translation import gettext_lazy as _

Why = tuple[Any, Any]
"""(why, what to do about it; "" where that isn't known)."""

REASONS: dict[str, Why] = {
    "unknown user name or wrong password": (
        _("Unknown user name or wrong password"),
        _("Compare the device's user name with its name here, or give it a new password."),
    ),
    "a user name and a password are needed": (
        _("No user name and password"),
        _("This listener takes nobody who doesn't sign in: give the device a name and a password."),
    ),
    "the device is disabled": (_("The device is disabled"), _("Enable it to let it in.")),
    "the device has another client id": (
        _("Its client id is not the one it is bound to"),
        _("Change the client id on the device, or the one it is bound to here."),
    ),
    "the client id belongs to another device": (
        _("The client id belongs to another device"),
        _("Every device needs a client id of its own."),
    ),
    "the client id is another principal's": (
        _("A stored session of that client id belongs to somebody else"),
        _("Clear that session on the client's page, or use another client id."),
    ),
    "too many wrong passwords from there; wait": (
        _("Too many wrong passwords from that address"),
        _("It is slowed down for up to a minute; correct the password first."),
    ),
    "the credential was changed": (_("Its password was changed meanwhile"), _("Give it the new one.")),
    "not authorised to publish the will": (
        _("No policy allows the topic of its will"),
        _("Allow it in one of the device's policies, or leave the will out."),
    ),
    "banned": (_("Banned"), _("Lift the ban to let it in.")),
    "tls": (_("TLS could not be set up"), _("Check the certificate, the authority it trusts, and the address.")),
    "connect-timeout": (
        _("It said nothing useful in time"),
        _("Check that it speaks MQTT to this port, and TLS only where the listener does."),
    ),
    "connections": (_("Too many connections"), _("The gateway's limit of connections is reached.")),
    "connect-rate": (_("Too many connects a second"), _("The gateway's limit of connects is reached.")),
}


def explained(kind: str, detail: str) -> Why:
    if kind in REASONS:
        return REASONS[kind]
    if detail.startswith("banned"):
        return REASONS["banned"]
    return REASONS.get(detail, (detail or kind, ""))
