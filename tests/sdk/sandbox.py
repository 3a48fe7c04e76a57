"""Run a command that may open no unix socket: `python sandbox.py ERRNO COMMAND…`.

By a filter of the kernel (seccomp), socket(AF_UNIX, …) fails with a number such as EACCES, as in sandboxes.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

# The number of socket(2), and the kernel's name of the machine (AUDIT_ARCH).
_MACHINES = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}
_AF_UNIX = 1
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def forbid_unix_sockets(reason: int) -> None:
    """Take unix sockets from this process, and from what it runs, for good. `reason` is the errno."""
    number, machine = _MACHINES[platform.machine()]
    steps = (
        (_LOAD, 0, 0, 4),
        (_IF_EQUAL, 0, 5, machine),
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 0, 3, number),
        (_LOAD, 0, 0, 16),
        (_IF_EQUAL, 0, 1, _AF_UNIX),
        (_RETURN, 0, 0, _ERRNO | reason),
        (_RETURN, 0, 0, _ALLOW),
    )
    raw = b"".join(struct.pack("HBBI", *step) for step in steps)
    program = _Program(len(steps), raw)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the filter was refused")


if __name__ == "__main__":
    forbid_unix_sockets(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
