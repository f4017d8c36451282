"""The filter of system calls, run by a small interpreter of classic BPF, for every machine."""

from __future__ import annotations

import errno
import struct

import pytest

from layout.host.linux.namespaces_filter import _MACHINES, program

ALLOW, REFUSE, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
NEW_USER, THREAD = 0x10000000, 0x00010F00


EACH = [(machine, numbers) for machine, sets in _MACHINES.items() for numbers in sets]
each = pytest.mark.parametrize(("machine", "numbers"), EACH, ids=str)


def verdict(machine: str, number: int, first: int = 0, audit: int | None = None) -> int:
    """Return what the kernel would do with a call."""
    data = struct.pack("=iIQ6Q", number, audit or _MACHINES[machine][0][0], 0, first, *[0] * 5)
    lines = list(struct.iter_unpack("=HBBI", program(machine)))
    at, value = 0, 0
    while True:
        code, true, false, operand = lines[at]
        at += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("=I", data, operand)
            case 0x15:
                at += true if value == operand else false
            case 0x35:
                at += true if value >= operand else false
            case 0x45:
                at += true if value & operand else false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(code)


@each
def test_only_user_namespaces_and_keys_are_refused(machine: str, numbers: tuple[int, int, int, int]) -> None:
    audit, clone, unshare, keys = numbers
    assert verdict(machine, clone, THREAD, audit) == verdict(machine, unshare, 0x20000, audit) == ALLOW
    assert verdict(machine, 0, 0, audit) == ALLOW
    assert verdict(machine, clone, NEW_USER | THREAD, audit) == REFUSE
    assert verdict(machine, unshare, NEW_USER, audit) == REFUSE
    assert verdict(machine, 435, 0, audit) == UNKNOWN
    every = range(460)
    assert {number for number in every if verdict(machine, number, 0, audit) == UNKNOWN} == {
        435,
        *(keys + place for place in range(3)),
    }
    assert {number for number in every if verdict(machine, number, NEW_USER, audit) == REFUSE} == {
        clone,
        unshare,
    }


@each
def test_another_set_of_numbers_is_no_way_around(machine: str, numbers: tuple[int, int, int, int]) -> None:
    assert verdict(machine, 0, audit=0x40000008) == REFUSE
    assert verdict(machine, 0x40000000 | numbers[1], NEW_USER, numbers[0]) == REFUSE
