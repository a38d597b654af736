"""The filter of system calls, read by an interpreter of its instructions and compared with numbers out of the kernel's headers."""

import errno
import os
import struct

import pytest

from ldlm_hf.tasks.program_confinement import MACHINES, system_call_filter


ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
NAMES = "read openat socket connect execve clone clone3 ptrace kill unlinkat fchmodat mkdirat openat2 io_uring_setup prctl seccomp"
NUMBERS = {  # of `asm/unistd_64.h` and `asm-generic/unistd.h`
    "x86_64": (0, 257, 41, 42, 59, 56, 435, 101, 62, 263, 268, 258, 437, 425, 157, 317),
    "aarch64": (63, 56, 198, 203, 221, 220, 435, 117, 129, 35, 53, 34, 437, 425, 167, 277),
}
X86_ONLY = {"open": 2, "fork": 57, "vfork": 58, "chmod": 90, "mkdir": 83, "creat": 85, "truncate": 76}
FCNTL = {"x86_64": 72, "aarch64": 25}
PRLIMIT = {"x86_64": 302, "aarch64": 261}


def verdict(machine: str, number: int, *arguments: int, other: str | None = None) -> int:
    """Return what a filter for `machine` says of a call on it, or on another one."""
    program = system_call_filter(machine, 4711)
    code = [struct.unpack_from("HBBI", program, place) for place in range(0, len(program), 8)]
    data = struct.pack("IIQ6Q", number, MACHINES[other or machine][1], 0, *(*arguments, *[0] * 6)[:6])
    place = word = 0
    while True:
        kind, if_true, if_false, value = code[place]
        place += 1
        if kind == 0x20:
            (word,) = struct.unpack_from("I", data, value)
        elif kind == 0x54:
            word &= value
        elif kind == 0x15:
            place += if_true if word == value else if_false
        else:
            assert kind == 0x06
            return value


@pytest.mark.parametrize("machine", NUMBERS)
def test_only_what_a_program_needs_is_allowed(machine):
    numbers = dict(zip(NAMES.split(), NUMBERS[machine], strict=True)) | (X86_ONLY if machine == "x86_64" else {})
    allowed = {name for name, number in numbers.items() if verdict(machine, number) == ALLOW}
    assert allowed == {"read", "openat", "unlinkat", *(["open"] if machine == "x86_64" else [])}
    assert {verdict(machine, number) for name, number in numbers.items() if name not in allowed} == {REFUSE}


@pytest.mark.parametrize("machine", NUMBERS)
def test_numbers_of_other_machines_and_interfaces_are_refused(machine):
    (other,) = set(NUMBERS) - {machine}
    assert all(verdict(machine, number, other=other) == KILL for number in range(600))
    assert all(verdict(machine, 0x40000000 + number) == REFUSE for number in range(600))
    assert all(verdict(machine, number) == REFUSE for number in range(440, 1000))


@pytest.mark.parametrize("machine", NUMBERS)
def test_arguments_decide_where_a_call_has_two_sides(machine):
    names = dict(zip(NAMES.split(), NUMBERS[machine], strict=True))
    assert verdict(machine, names["kill"], 4711, 9) == ALLOW
    others = (1, 4712, 0, -1 & (1 << 64) - 1, -4711 & (1 << 64) - 1)
    assert {verdict(machine, names["kill"], pid, 9) for pid in others} == {REFUSE}
    for flags in (
        os.O_RDONLY,
        os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
        os.O_RDWR | os.O_TRUNC,
        os.O_RDONLY | os.O_CLOEXEC,
    ):
        assert verdict(machine, names["openat"], 0, 0, flags) == ALLOW
    assert verdict(machine, names["openat"], 0, 0, os.O_RDONLY | os.O_TRUNC | os.O_CLOEXEC) == REFUSE
    assert [verdict(machine, FCNTL[machine], 1, command) for command in (1, 3, 8, 10, 15)] == [ALLOW] * 2 + [
        REFUSE
    ] * 3
    read, write = (0, 7, 0, 1 << 40), (0, 7, 1 << 40, 0)
    assert verdict(machine, PRLIMIT[machine], *read) == verdict(machine, PRLIMIT[machine], 4711, 7, 0) == ALLOW
    assert {verdict(machine, PRLIMIT[machine], *call) for call in (write, (0, 7, 1), (1, 7, 0))} == {REFUSE}
