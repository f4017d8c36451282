"""A session's own terminal on Linux: from the devpts inside, and never looked up by name."""

from __future__ import annotations

import fcntl
import os

from layout.core.errors import LayoutError, reason_of

_MULTIPLEXER = "/dev/pts/ptmx"
# _IOW('T', 0x31, int) and _IO('T', 0x41): POWER numbers the directions of ioctl(2) differently.
_POWER = os.uname().machine.startswith("ppc")
_TIOCSPTLCK = 0x80045431 if _POWER else 0x40045431
_TIOCGPTPEER = 0x20005441 if _POWER else 0x5441


def open_pair() -> tuple[int, int]:
    """Open a new terminal in the caller's own /dev/pts; returns (master, slave), both close-on-exec.

    It must be the session's own instance: ttyname(3) looks for the terminal below /dev/pts, so with a
    terminal of the host tty(1) says "not a tty" inside, and programs such as sudo or gpg refuse. The slave
    is taken from the master by descriptor (TIOCGPTPEER, Linux 4.13), never looked up by name. Raises
    LayoutError when there is no such instance.
    """
    try:
        master = os.open(_MULTIPLEXER, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise LayoutError(
            _MULTIPLEXER,
            reason_of(error),
            "a devpts of the session's own",
            "pts(4), mount option newinstance",
        ) from error
    if os.fstat(master).st_rdev != os.makedev(5, 2):
        os.close(master)
        raise LayoutError(_MULTIPLEXER, "another kind of file", "a pseudoterminal multiplexer, ptmx(4)")
    fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave
