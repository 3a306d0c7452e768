"""Shutting out in the system: the program, run here as it would be there."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address, ip_address

from gateway.server.pace import network_of
from gateway.server.shutting import MOST, Shutters, Step, program

SYN, ACK, FIN = 0x02, 0x10, 0x01


def takes(steps: list[Step], sender: str, flags: int) -> bool:
    """What the system would do with a segment: the steps of classic BPF that ours are made of."""
    found = ip_address(sender)
    if isinstance(found, IPv6Address):
        header = b"\x60" + bytes(7) + found.packed + bytes(16)
    else:
        header = b"\x45" + bytes(11) + found.packed + bytes(4)
    segment = bytes(13) + bytes([flags]) + bytes(6)
    at = value = 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        if code in (0x20, 0x30):
            signed = operand - (1 << 32) if operand >> 31 else operand
            data, place = (header, signed + 0x10_0000) if signed < 0 else (segment, signed)
            value = data[place] if code == 0x30 else struct.unpack_from("!I", data, place)[0]
        elif code == 0x54:
            value &= operand
        elif code == 0x74:
            value >>= operand
        elif code == 0x15:
            at += yes if value == operand else no
        else:
            assert code == 0x06
            return bool(operand)


def test_attempts_of_the_networks_are_dropped_and_nothing_else_is() -> None:
    out = ["10.0.0.1", "192.168.255.254", network_of("[2001:db8:1:2::1]:80"), network_of("[fe80::1]:80")]
    steps = program(out)
    for sender in ("10.0.0.1", "192.168.255.254", "2001:db8:1:2:ffff::9", "fe80::7:1"):
        assert not takes(steps, sender, SYN)
        assert takes(steps, sender, ACK) and takes(steps, sender, SYN | ACK) and takes(steps, sender, FIN | ACK)
    for sender in ("10.0.0.2", "1.0.0.10", "2001:db8:1:3::1", "2001:db8:2:2::1", "::1", "0.0.0.0"):
        assert takes(steps, sender, SYN)


def test_as_many_networks_as_there_may_be_fit_into_a_program() -> None:
    four = [f"10.0.{number}.1" for number in range(MOST)]
    six = [network_of(f"[2001:db8:{number:x}::1]:80") for number in range(MOST)]
    for networks, first, last in ((four, "10.0.0.1", f"10.0.{MOST - 1}.1"), (six, "2001:db8::9", "2001:db8:31::9")):
        steps = program(networks)
        assert not takes(steps, first, SYN) and not takes(steps, last, SYN) and takes(steps, "10.1.0.1", SYN)
        assert all(0 <= number < 256 for _, yes, no, _ in steps for number in (yes, no))


def test_what_is_no_address_shuts_out_nobody() -> None:
    steps = program(["", "unknown"])
    assert takes(steps, "10.0.0.1", SYN) and takes(steps, "::1", SYN)


class Socket:
    def __init__(self, *, able: bool = True) -> None:
        self.able = able
        self.asked: list[int] = []

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None:
        if not self.able:
            raise PermissionError(1, "Operation not permitted")
        self.asked.append(name)


def test_the_program_is_renewed_as_networks_come_and_taken_away_with_the_last() -> None:
    shutters, socket = Shutters(), Socket()
    shutters.watch([socket])
    assert shutters.shut("10.0.0.1") and shutters.shut("10.0.0.2")
    shutters.open(["10.0.0.1"])
    shutters.open(["10.0.0.2"])
    shutters.open(["10.0.0.2"])
    assert socket.asked == [26, 26, 26, 27]


def test_there_is_an_end_to_the_networks_that_are_shut_out() -> None:
    shutters = Shutters()
    shutters.watch([Socket()])
    assert all(shutters.shut(f"10.0.0.{number}") for number in range(MOST))
    assert not shutters.shut("10.0.1.1")


def test_where_the_system_does_not_let_us_nobody_is_shut_out() -> None:
    shutters = Shutters()
    assert not shutters.shut("10.0.0.1"), "nothing listens"
    shutters.watch([Socket(able=False)])
    assert not shutters.shut("10.0.0.1") and not shutters.networks
    shutters.watch([Socket()])
    shutters.forget()
    assert not shutters.shut("10.0.0.1"), "the sockets are closed"
