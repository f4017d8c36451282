"""Find the site: ROOT, ETC, the platform, the configuration. Refuse a ROOT that cannot be made safe."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

from layout.core.errors import LayoutError, UsageError, reason_of
from layout.core.model import Platform, Site
from layout.core.profile import Config, check_config, decode
from layout.core.zfs import check_parent
from layout.host import hostfiles

ETC = {Platform.FREEBSD: "/usr/local/etc/layout", Platform.LINUX: "/etc/layout"}


def running_platform() -> Platform:
    """Return the platform that this process runs on. Raises LayoutError for any other than ours."""
    if sys.platform.startswith("freebsd"):
        return Platform.FREEBSD
    if sys.platform == "linux":
        return Platform.LINUX
    raise LayoutError("this host", sys.platform, "FreeBSD or Linux")


def find(root: str | None, config_path: str | None, platform: Platform | None) -> tuple[Site, Config]:
    """Return the site and its configuration.

    With an explicit `root`, ETC is ROOT/etc and the host's fstab is ETC/fstab, so that a trial touches
    nothing else. Raises UsageError for a path or configuration that cannot be used.
    """
    platform = platform or running_platform()
    if root is not None:
        root = checked_path(root)
        etc = f"{root}/etc"
    else:
        etc = ETC[platform]
    path = config_path or f"{etc}/layout.toml"
    data = hostfiles.read_toml(path)
    if data is None and config_path is not None:
        raise UsageError(config_path, "nothing", "a configuration file", "check --config and LAYOUT_CONFIG")
    config = check_config(decode(data or {}, Config, path), path)
    place = root if root is not None else checked_path(config.root)
    fstab = "/etc/fstab" if root is None else f"{etc}/fstab"
    parent = check_parent(config.zfs, f"{path}: zfs") if config.zfs else ""
    return Site(place, etc, platform, fstab, trial=root is not None, zfs=parent), config


def checked_path(path: str) -> str:
    """Return ROOT as an absolute path without trailing slash. Raises UsageError."""
    if not path or "\0" in path:
        raise UsageError(repr(path), "no path", "the path of ROOT")
    parts = os.path.abspath(path)
    if parts == "/" or len(os.fsencode(parts)) > 512:
        raise UsageError(
            parts[:60],
            "'/'" if parts == "/" else "a path of over 512 bytes",
            "a directory of its own, such as /jails",
        )
    return parts


def check_parents(root: str) -> None:
    """Make sure that nobody but root can replace ROOT: it and its parents are real, root's, and closed.

    A sticky parent such as /tmp is accepted: there only the owner can rename what is his. Raises UsageError
    that names the first directory that is not so.
    """
    path = ""
    for part in ["", *root.strip("/").split("/")]:
        path = f"{path}/{part}" if part else "/"
        path = path.replace("//", "/")
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(path, reason_of(error), "a directory") from None
        if stat.S_ISLNK(found.st_mode):
            raise UsageError(
                path,
                f"a symbolic link to {os.readlink(path)}",
                "a real directory",
                f"use --root {os.path.realpath(root)}",
            )
        if not stat.S_ISDIR(found.st_mode):
            raise UsageError(path, "no directory", "a directory")
        if found.st_uid not in {0, os.geteuid()} and not _unmapped(found.st_uid):
            raise UsageError(
                path,
                f"a directory of user {found.st_uid}",
                "one that belongs to root",
                f"chown root {path}, or choose another ROOT",
            )
        sticky_parent = found.st_mode & stat.S_ISVTX and path != root
        if found.st_mode & 0o022 and not sticky_parent:
            raise UsageError(
                path,
                f"mode {stat.S_IMODE(found.st_mode):04o}, which others can write to",
                "a directory that only root can write to",
                f"chmod go-w {path}, or choose another ROOT",
            )


def loose_configuration(etc: str) -> Iterator[tuple[str, str]]:
    """Yield path and state of what others than root can change of layout's configuration. Raises OSError.

    Links are followed: they are the administrator's, and what they lead to is what is read.
    """
    directories = [etc, *(f"{etc}/{name}" for name in ("profiles", "fstab.d"))]
    files = [f"{etc}/layout.toml"]
    for path in directories[1:]:
        files += hostfiles.files_of(path)
    for path in dict.fromkeys((*directories, *files)):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in {0, os.geteuid()} and not _unmapped(found.st_uid):
            yield path, f"user {found.st_uid}, mode {mode:04o}"
        elif mode & 0o022:
            yield path, f"mode {mode:04o}, which others can write to"


def _unmapped(uid: int) -> bool:
    """In a user namespace, everything of the real root belongs to the overflow user."""
    if uid != 65534 or sys.platform != "linux":
        return False
    return in_user_namespace()


def in_user_namespace() -> bool:
    """Say whether this process is root of a user namespace only, not of the host."""
    if sys.platform != "linux":
        return False
    text = hostfiles.read_text("/proc/self/uid_map") or ""
    return text.split() != ["0", "0", "4294967295"]
