"""File capabilities (capabilities(7)): what makes a program of Linux stronger without being setuid."""

from __future__ import annotations

import errno
import os
import sys

_NAME = "security.capability"
_NONE = {errno.ENODATA if sys.platform == "linux" else errno.ENOENT, errno.EOPNOTSUPP}
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def of(fd: int, name: str) -> bytes | None:
    """Return the file capabilities of a regular file in the directory `fd`, None when it has none.

    No link is followed. Raises OSError, FileNotFoundError when it is gone.
    """
    if sys.platform != "linux":  # FreeBSD has none
        return None
    try:
        # One call instead of three; the name is one component, and the last one is not followed.
        return os.getxattr(f"/proc/self/fd/{fd}/{name}", _NAME, follow_symlinks=False)
    except FileNotFoundError:
        return _opened(fd, name)  # gone, or there is no /proc
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


def _opened(fd: int, name: str) -> bytes | None:
    file = os.open(name, _READ, dir_fd=fd)
    try:
        return os.getxattr(file, _NAME)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    finally:
        os.close(file)
