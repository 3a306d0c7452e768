"""Why connections are refused, as words that never change: for programs, and for consoles that say it in any language.

`Refused.why` carries one from where it is decided to the record of `contract.TRAFFIC` (CLOSED_FIELDS). What is refused
without one is told apart by its `kind` alone. A word may be added; one that was given out keeps its meaning.
"""

from enum import StrEnum


class Why(StrEnum):
    CREDENTIALS = "credentials"  # unknown user name or wrong password
    NO_CREDENTIALS = "no-credentials"  # none were given, and this listener asks for them
    CREDENTIAL_CHANGED = "credential-changed"  # while they were checked
    TOKEN = "token"  # noqa: S105 - not a secret: a token that is not valid, or another's
    PLUGIN = "plugin"  # an authentication plugin failed
    METHOD = "method"  # no such enhanced authentication
    NAME = "name"  # the name can't be a principal's
    GUESSES = "guesses"  # too many wrong passwords from there
    BANNED = "banned"
    DISABLED = "disabled"
    CLIENT_ID_BOUND = "client-id-bound"  # the device is bound to another client id
    CLIENT_ID_TAKEN = "client-id-taken"  # it is another device's
    CLIENT_ID_RESERVED = "client-id-reserved"  # nobody may have it
    SESSION_OWNER = "session-owner"  # the stored session of that client id is somebody else's
    TAKEN_OVER = "taken-over"  # by another connection with that client id
    CONNECTIONS = "connections"  # the device has as many as it may have
    SESSIONS = "sessions"  # as many sessions are kept for the device as may be
    MOVED = "moved"  # this gateway sends everybody elsewhere
    WILL = "will"  # its topic is not allowed
    UNAVAILABLE = "unavailable"  # not now: the gateway starts, recovers or waits
