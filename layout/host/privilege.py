"""Who we are: root of the host, root of a user namespace, or neither."""

from __future__ import annotations

import os
import sys

from layout.core.errors import LayoutError, reason_of

AS_ROOT = "run it as root" + (
    "; as an ordinary user, for a trial: layout --root DIR init NAME --userns"
    if sys.platform == "linux"
    else ""
)
"""What to do where only root can."""


def is_root() -> bool:
    """Say whether this process is root, of the host or of a user namespace."""
    return os.geteuid() == 0


def require_root() -> None:
    """Make sure of it. Raises LayoutError."""
    if not is_root():
        raise LayoutError(
            "this command",
            f"user {os.geteuid()}",
            "root",
            AS_ROOT,
        )


def enter_user_namespace() -> None:
    """Become root of a new user and mount namespace, which ends with this process. Raises LayoutError."""
    if sys.platform != "linux":
        raise LayoutError("this host", sys.platform, "Linux, which has user namespaces", "run it as root")
    from layout.host.linux import syscalls

    uid, gid = os.geteuid(), os.getegid()
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            _write(f"/proc/self/{name}", text)
        syscalls.mount(b"none", b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as error:
        raise LayoutError(
            "user namespaces",
            reason_of(error),
            "a kernel that lets users make them",
            "see sysctl kernel.unprivileged_userns_clone and user.max_user_namespaces, or run it as root",
        ) from None


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
