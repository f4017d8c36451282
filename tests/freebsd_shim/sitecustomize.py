"""Python as it is on FreeBSD, for the programs of a pretended FreeBSD host; tests/freebsd_host.py loads it.

sys.platform is freebsd15, nothing of layout.host.linux can be imported, what FreeBSD's Python lacks is not
in `os` (CPython's configure, and the availability notes of its documentation), and there is no /proc.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys

sys.platform = "freebsd15"

_GONE = {
    os: """
        getxattr setxattr listxattr removexattr XATTR_CREATE XATTR_REPLACE XATTR_SIZE_MAX
        O_PATH O_TMPFILE O_NOATIME O_LARGEFILE memfd_create unshare setns pidfd_open eventfd splice
        copy_file_range getrandom CLONE_NEWNS CLONE_NEWUSER CLONE_NEWPID P_PIDFD sched_setaffinity
        sched_getaffinity ST_NODEV ST_NOEXEC""",
    select: "epoll",
    signal: "signalfd pidfd_send_signal",
    socket: "AF_NETLINK AF_PACKET AF_VSOCK",
    fcntl: "F_SETPIPE_SZ F_GETPIPE_SZ F_NOTIFY F_SETLEASE F_ADD_SEALS",
}
for _module, _names in _GONE.items():
    for _name in _names.split():
        if hasattr(_module, _name):
            delattr(_module, _name)


_LOOKING: list[bool] = []


@contextlib.contextmanager
def _allowed():
    """Let the pretended kernel look at Linux, which it is made of."""
    _LOOKING.append(True)
    try:
        yield
    finally:
        _LOOKING.pop()


_CDLL = ctypes.CDLL


def _load(name, *words, **more):
    """Load a library; libc as FreeBSD has it."""
    found = _CDLL(name, *words, **more)
    if name is not None:
        return found
    from kernel_calls import Libc

    ctypes.CDLL = _CDLL  # the personality's own
    try:
        return Libc(found, _allowed)
    finally:
        ctypes.CDLL = _load


ctypes.CDLL = _load


def _strict(event: str, arguments: tuple[object, ...]) -> None:
    if event == "import" and str(arguments[0]).startswith("layout.host.linux"):
        raise ImportError(f"{arguments[0]}: this is FreeBSD")
    if not _LOOKING and event in ("open", "os.listdir", "os.scandir", "os.chdir") and arguments:
        path = arguments[0]
        if isinstance(path, str | bytes) and os.fsdecode(path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", path)


sys.addaudithook(_strict)
