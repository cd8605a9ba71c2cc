"""Starts a command under a unit's system call filter, address families and ban on memory that is written and executed, by libseccomp and prctl(2).

`python unit_filter.py UNIT COMMAND…`. systemd itself has to be process 1 to do so; this is what it would ask of the kernel.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

ALLOW, ERRNO = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO
EPERM, EAFNOSUPPORT = 1, 97
EQUAL = 4  # SCMP_CMP_EQ
NO_NEW_PRIVILEGES, MDWE, REFUSE_EXEC_GAIN = 38, 65, 1
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}


class Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("first", ctypes.c_uint64), ("second", ctypes.c_uint64))


def group(name):
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", name], env={**os.environ, "SYSTEMD_COLORS": "0"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    words = [line.strip() for line in told.stdout.splitlines()[1:]]
    return expanded(word for word in words if word and not word.startswith("#"))


def expanded(words):
    calls = set()
    for word in words:
        calls |= group(word) if word.startswith("@") else {word}
    return calls


def settings(unit, name):
    return [line.split("=", 1)[1] for line in unit.read_text().splitlines() if line.startswith(f"{name}=")]


def main():
    unit, command = Path(sys.argv[1]), sys.argv[2:]
    allowed = group("@default")
    for line in settings(unit, "SystemCallFilter"):
        allowed = allowed - expanded(line[1:].split()) if line.startswith("~") else allowed | expanded(line.split())
    families = {FAMILIES[word] for line in settings(unit, "RestrictAddressFamilies") for word in line.split()}
    assert settings(unit, "MemoryDenyWriteExecute") == ["yes"]

    seccomp, libc = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
    seccomp.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]  # fmt: skip
    number = seccomp.seccomp_syscall_resolve_name
    assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    libc.prctl(MDWE, REFUSE_EXEC_GAIN, 0, 0, 0)  # kernels before 6.3 do not know it
    sockets = seccomp.seccomp_init(ALLOW)
    for family in set(range(46)) - families:
        other = Compare(0, EQUAL, family, 0)
        seccomp.seccomp_rule_add_array(sockets, ERRNO | EAFNOSUPPORT, number(b"socket"), 1, ctypes.byref(other))
    assert seccomp.seccomp_load(sockets) == 0
    calls = seccomp.seccomp_init(ERRNO | EPERM)
    for name in allowed:
        if (call := number(name.encode())) >= 0:
            seccomp.seccomp_rule_add_array(calls, ALLOW, call, 0, None)
    assert seccomp.seccomp_load(calls) == 0
    os.execv(command[0], command)


main()
