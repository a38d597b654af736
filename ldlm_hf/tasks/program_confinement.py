"""What the kernel refuses a program, whatever it does to Python: files by Landlock, all else by a filter of system calls.

Both are for good, hold for native code and the superuser, and need no rights (Linux on x86-64 and arm64; Landlock from 5.13
on). A confined process reads its own folder and what Python itself is made of, and writes files in its own folder. It makes no
process, thread, socket or folder, signals and traces no other process, and changes no mode, owner or time of a file.

What they do not do: they do not hide that a file exists or how large it is, and they are no better than the kernel they
are part of. [`missing`] says what a system lacks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import site
import struct
import sys
import sysconfig
from collections.abc import Iterable


MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, and the kernel's name
# All that is allowed, by number on x86-64 and arm64, without regard to arguments. What is not here fails by EPERM.
SYSTEM_CALLS = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, lseek 8 62, close 3 57, close_range 436 436,
dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -, pipe2 293 59, fsync 74 82, fdatasync 75 83, ftruncate 77 46, fallocate 285 47,
copy_file_range 326 285, sendfile 40 71, fadvise64 221 223, unlink 87 -, unlinkat 263 35, rename 82 -,
renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, readlink 89 -,
readlinkat 267 78, stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48,
faccessat2 439 439, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50, statfs 137 43, fstatfs 138 44,
umask 95 166, mmap 9 222, mremap 25 216, munmap 11 215, mprotect 10 226, madvise 28 233, brk 12 214, msync 26 227,
mincore 27 232, membarrier 324 283, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136,
rt_sigtimedwait 128 137, rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -, alarm 37 -, getitimer 36 102,
setitimer 38 103, restart_syscall 219 128, nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113,
clock_getres 229 114, gettimeofday 96 169, time 201 -, times 100 153, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, eventfd2 290 19, futex 202 98,
set_robust_list 273 99, get_robust_list 274 100, rseq 334 293, sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168,
getpid 39 172, getppid 110 173, gettid 186 178, getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177,
getresuid 118 148, getresgid 120 150, getgroups 115 158, getpgid 121 155, getpgrp 111 -, getsid 124 156, getrlimit 97 163,
getrusage 98 165, sysinfo 99 179, uname 63 160, getrandom 318 278, getpriority 140 141, exit 60 93, exit_group 231 94
"""
CONDITIONAL_CALLS = "open 2 -, openat 257 56, fcntl 72 25, ioctl 16 29, kill 62 129, tgkill 234 131, prlimit64 302 261"
FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)  # duplicates, flags, locks, size of a pipe; not who is sent a signal
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # is it a terminal, its size, how much to read, flags
ANY = 0xFFFFFFFF
Condition = tuple[int, int, tuple[int, ...]]  # word of the arguments, bits of it that count, values that are allowed

LANDLOCK = 444, 445, 446  # create a set of rules, add a rule, restrict this process: the same numbers on all machines
READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
# To write to, remove, make and cut files. To remove many folders takes long, so none are made.
CHANGE = sum(1 << bit for bit in (1, 5, 8, 14))
NUM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # by version of Landlock; 16 in later ones
READABLE = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/localtime"),
    *("/etc/ld.so.cache", "/dev/urandom", "/dev/random", "/dev/zero"),
)

libc = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None


def missing() -> list[str]:
    """Return which of `"landlock"` and `"seccomp"` this system lacks, so that nothing is confined by it."""
    if not sys.platform.startswith("linux"):
        return ["landlock", "seccomp"]
    lacks = [] if _landlock_version() > 0 else ["landlock"]
    is_known = os.uname().machine in MACHINES and sys.maxsize > 1 << 32
    return lacks if is_known and libc.prctl(21, 0, 0, 0, 0) >= 0 else [*lacks, "seccomp"]  # PR_GET_SECCOMP


def confine(folder: str) -> None:
    """Confine this process, for good, by what the system has.

    Args:
        folder (`str`): where it may write.

    Raises:
        OSError: if something that the system has does not work.
    """
    lacks = missing()
    if len(lacks) == 2:
        return
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: not to outlive who waits for it
    _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
    _prctl(4, 0)  # PR_SET_DUMPABLE: leave no picture of the memory, and let nobody look into it
    if "landlock" not in lacks:
        _restrict_files(folder)
    if "seccomp" not in lacks:
        code = system_call_filter(os.uname().machine, os.getpid())
        instructions = ctypes.create_string_buffer(code, len(code))
        fprog = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
        _prctl(22, 2, ctypes.create_string_buffer(fprog, len(fprog)))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def system_call_filter(machine: str, pid: int) -> bytes:
    """Return the filter as instructions of the classic Berkeley packet filter, 8 bytes each.

    Args:
        machine (`str`): `"x86_64"` or `"aarch64"`.
        pid (`int`): the process, which may signal itself.
    """
    column, name = MACHINES[machine]
    conditions: dict[str, list[Condition]] = {
        # To cut a file that is opened to be read only, an old Landlock does not forbid.
        "open": [(_low(1), 0o1003, (0, 1, 2, 0o1001, 0o1002))],
        "openat": [(_low(2), 0o1003, (0, 1, 2, 0o1001, 0o1002))],
        "fcntl": [(_low(1), ANY, FCNTL)],
        "ioctl": [(_low(1), ANY, IOCTL)],
        "kill": [(_low(0), ANY, (pid,))],
        "tgkill": [(_low(0), ANY, (pid,))],
        "prlimit64": [(_low(0), ANY, (0, pid)), (_low(2), ANY, (0,)), (_low(2) + 4, ANY, (0,))],  # to read them
    }
    allow, refuse, kill = (_instruction(0x06, value) for value in (0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000))
    code = [_load(4), _instruction(0x15, name, 1, 0), kill, _load(0)]  # numbers mean nothing on another machine
    for number in _numbers(SYSTEM_CALLS, column).values():
        code += [_instruction(0x15, number, 0, 1), allow]
    for call, number in _numbers(CONDITIONAL_CALLS, column).items():
        checks: list[bytes] = []
        for word, bits, values in conditions[call]:
            checks += [_load(word), _instruction(0x54, bits)]
            checks += [_instruction(0x15, value, len(values) - i, 0) for i, value in enumerate(values)]
            checks.append(refuse)
        code += [_instruction(0x15, number, 0, len(checks) + 1), *checks, allow]
    return b"".join([*code, refuse])


def _numbers(table: str, column: int) -> dict[str, int]:
    rows = [entry.split() for entry in table.split(",")]
    return {name: int(numbers[column]) for name, *numbers in rows if numbers[column] != "-"}


def _low(argument: int) -> int:
    """Return where the lower half of an argument of a system call is."""
    return 16 + 8 * argument


def _load(word: int) -> bytes:
    return _instruction(0x20, word)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _prctl(option: int, *arguments: int | ctypes.Array) -> None:
    values = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in (*arguments, 0, 0, 0)[:4]]
    _check(libc.prctl(option, *values))


def _restrict_files(folder: str) -> None:
    """Let this process read what Python is made of, and `folder` be read and changed; nothing else."""
    version = _landlock_version()
    handled = (1 << NUM_RIGHTS.get(version, 16)) - 1
    # Also no TCP, from version 4 on; from 6 on no abstract Unix sockets and no signals to others.
    attributes = struct.pack("QQQ", handled, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _landlock(0, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path in _parts_of_python():
            _allow(rules, path, READ_FILE | READ_DIR)
        _allow(rules, os.devnull, READ_FILE | WRITE_FILE | TRUNCATE & handled)
        _allow(rules, folder, READ_FILE | READ_DIR | CHANGE & handled)
        _landlock(2, rules, 0)
    finally:
        os.close(rules)


def _parts_of_python() -> Iterable[str]:
    """Return the folders and files that Python and what is installed beside it are made of."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return dict.fromkeys([*paths, *site.getsitepackages(), os.path.join(sys.base_prefix, "lib"), *READABLE])


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what does not exist needs no rule
    try:
        of_a_file = rights if os.path.isdir(path) else rights & (READ_FILE | WRITE_FILE | TRUNCATE)
        _landlock(1, rules, 1, struct.pack("=Qi", of_a_file, place), 0)
    finally:
        os.close(place)


def _landlock_version() -> int:
    return libc.syscall(ctypes.c_long(LANDLOCK[0]), None, ctypes.c_size_t(0), ctypes.c_uint(1))


def _landlock(call: int, *arguments: int | bytes | ctypes.c_size_t) -> int:
    return _check(libc.syscall(ctypes.c_long(LANDLOCK[call]), *arguments))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this program could not be confined: {os.strerror(number)}")
    return result
