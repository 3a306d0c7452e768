"""Why gateways refuse connections, in words for people, and what to do about it.

By the words that gateways tell for programs (`gateway.why`), else by the kind of the end. What is known by neither is
shown in the gateway's own words, which are English.
"""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from gateway.why import Why


@dataclass(frozen=True, slots=True)
class Explained:
    """`why`, and what to do about it ("" where that isn't known). `more`: the gateway's words say more than that."""

    why: Any
    advice: Any = ""
    more: bool = False


REASONS: dict[str, Explained] = {
    Why.CREDENTIALS: Explained(
        _("Unknown user name or wrong password"),
        _("Compare the device's user name with its name here, or give it a new password."),
    ),
    Why.NO_CREDENTIALS: Explained(
        _("No user name and password"),
        _("This listener takes nobody who doesn't sign in: give the device a name and a password."),
    ),
    Why.CREDENTIAL_CHANGED: Explained(_("Its password was changed meanwhile"), _("Give it the new one.")),
    Why.TOKEN: Explained(
        _("Its token is not valid"), _("It needs a new token, for its own name and signed for this gateway."), more=True
    ),
    Why.PLUGIN: Explained(
        _("An authentication plugin failed"), _("The gateway's log says which one, and what it stumbled over.")
    ),
    Why.METHOD: Explained(
        _("It asks for another way to sign in"),
        _("Enhanced authentication is SCRAM here: choose that, or a user name and a password."),
        more=True,
    ),
    Why.NAME: Explained(_("Its name can't be used"), _("A name has no / + # in it.")),
    Why.GUESSES: Explained(
        _("Too many wrong passwords from that address"),
        _("It is slowed down for up to a minute; correct the password first."),
    ),
    Why.BANNED: Explained(_("Banned"), _("Lift the ban to let it in."), more=True),
    Why.DISABLED: Explained(_("The device is disabled"), _("Enable it to let it in.")),
    Why.CLIENT_ID_BOUND: Explained(
        _("Its client id is not the one it is bound to"),
        _("Change the client id on the device, or the one it is bound to here."),
    ),
    Why.CLIENT_ID_TAKEN: Explained(
        _("The client id belongs to another device"), _("Every device needs a client id of its own.")
    ),
    Why.CLIENT_ID_RESERVED: Explained(_("No client may have that client id"), _("Choose another one.")),
    Why.SESSION_OWNER: Explained(
        _("A stored session of that client id belongs to somebody else"),
        _("Clear that session on the client's page, or use another client id."),
    ),
    Why.TAKEN_OVER: Explained(
        _("Another connection came with its client id"),
        _("It took the session over. Every device needs a client id of its own."),
    ),
    Why.CONNECTIONS: Explained(
        _("The device has as many connections as it may have"),
        _("Allow it more, or find out who else signs in as it."),
    ),
    Why.SESSIONS: Explained(
        _("As many sessions are kept for the device as may be"),
        _("Clear sessions that nobody needs, allow it more, or find out why its client ids are new ones."),
    ),
    Why.MOVED: Explained(
        _("That gateway sends everybody elsewhere"),
        _("MQTT 5 clients are told where to; others need the new address."),
    ),
    Why.WILL: Explained(
        _("No policy allows the topic of its will"),
        _("Allow it in one of the device's policies, or leave the will out."),
    ),
    Why.UNAVAILABLE: Explained(
        _("The gateway could not take it then"),
        _("It was starting, recovering the session, or without its broker; the client is to try again."),
    ),
    # what has a kind alone
    "tls": Explained(
        _("TLS could not be set up"), _("Check the certificate, the authority it trusts, and the address."), more=True
    ),
    "connect-timeout": Explained(
        _("It said nothing useful in time"),
        _("Check that it speaks MQTT to this port, and TLS only where the listener does."),
    ),
    "connections": Explained(_("Too many connections"), _("The gateway's limit of connections is reached.")),
    "connect-rate": Explained(_("Too many connects a second"), _("The gateway's limit of connects is reached.")),
    "address-rate": Explained(
        _("Too many connects a second from that address"),
        _("It connects too often, or for nothing. SLUICE_MQTT_CONNECTS_PER_ADDRESS is the limit of those that behave."),
    ),
    "proxy-untrusted": Explained(_("Not a trusted proxy"), _("Name the proxy's network in SLUICE_TRUSTED_PROXIES.")),
    "proxy-header": Explained(
        _("No PROXY header came first"),
        _("That listener is for proxies that send one; clients have another."),
        more=True,
    ),
    "websocket-upgrade": Explained(
        _("The WebSocket could not be opened"), _("Check the path, the Origin and the subprotocol mqtt."), more=True
    ),
    "websocket-frame": Explained(_("It broke the WebSocket protocol"), more=True),
    "denied": Explained(_("No policy allows that topic"), _("Allow it in one of the device's policies."), more=True),
    "topic": Explained(_("Not a topic name"), _("A message has a topic name, without wildcards."), more=True),
}
BROKEN = Explained(_("It broke the MQTT protocol"), more=True)


ENDS: dict[str, Any] = {  # how gateways say in presence that a connection ended
    "disconnect": _("it said goodbye"),
    "closed by peer": _("it closed the connection without a word"),
    "websocket closed by peer": _("it closed the WebSocket without a word"),
    "connection lost": _("the connection broke"),
    "keep alive": _("nothing came for longer than its keep alive"),
    "the peer does not read": _("it did not read what it was sent"),
    "credential expired": _("its credential expired"),
    "session taken over": _("another connection came with its client id"),
    "banned": _("banned"),
    "the device's access was changed": _("its access was changed"),
    "disconnected by an operator": _("disconnected by an operator"),
    "server shutting down": _("its gateway stopped"),
    "the gateway was started again": _("its gateway was started again"),
}


def ending(reason: str) -> Any:
    """Why a connection ended, for people; the gateway's own words where there are no others."""
    return ENDS.get(reason, reason)


def explained(kind: str, why: str, detail: str) -> Explained:
    """`kind`: a slug; that of the HTTP door begins with `http-`, that of a broken protocol is MQTT's code (`0x82`)."""
    known = REASONS.get(why) or REASONS.get(kind.removeprefix("http-"))
    if known is not None:
        return known
    return BROKEN if kind.startswith("0x") else Explained(detail or kind)


def saying(word: str) -> list[str]:
    """The keys of REASONS whose text, in the language in force, has that word."""
    folded = word.casefold()
    return [key for key, known in REASONS.items() if folded in str(known.why).casefold()]
