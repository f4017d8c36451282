"""Ways to break a jail that runs on FreeBSD, each with its finding and the check that makes it."""

from __future__ import annotations

import struct
from typing import NamedTuple

_HEAD = struct.pack("<6I", 0x746E6845, 1, 128, 64, 0, 13)
HINTS = _HEAD.ljust(128, b"\0") + b"/lib:/var/tmp".ljust(64, b"\0")
"""Hints of the run-time linker that lead to libraries in var."""


class Row(NamedTuple):
    """A way to break jail a below $R."""

    code: str
    severity: str
    check: str
    breaks: str
    times: int = 1
    """How many findings of this code there are when all of them are done."""


ROWS = {
    "ruleset not loaded": Row("S2-devfs", "error", "devfs", "personality set devfs unloaded"),
    "another parameter": Row(
        "S2-jail", "error", "jail parameters", "jail -m name=a allow.raw_sockets=true", 5
    ),
    "more than any jail may": Row(
        "S11-allowed",
        "error",
        "jail limits",
        "jail -m name=a enforce_statfs=1 allow.chflags=true allow.mount.nullfs=true children.max=3",
        4,
    ),
    "no ruleset": Row("S11-ruleset", "error", "jail limits", "jail -m name=a devfs_ruleset=0"),
    "all devices": Row("S11-devices", "error", "jail devices", "mount -t devfs devfs $R/j/a/proc"),
    "descriptors": Row("S11-fdescfs", "error", "no fdescfs", "mount -t fdescfs fdesc $R/j/a/dev/fd"),
    "old kernel": Row("S11-kernel", "warning", "kernel", "personality set release 15.0-RELEASE-p10", 2),
    "not at boot": Row("S12-rc-conf", "warning", "rc.conf", "sysrc jail_list="),
    "jail of a session": Row(
        "S3-left",
        "error",
        "left by a session",
        "jail -c name=layout-manage-a path=$R/manage/a persist",
    ),
    "edited": Row("S12-jail-conf", "error", "files", "echo '# mine' >>/etc/jail.conf.d/a.conf"),
    "auto-run": Row(
        "S7-autorun",
        "warning",
        "auto-run places",
        "mkdir -p $R/t/a/var/cron/tabs $R/t/a/var/run; echo '* * * * * root sh' >$R/t/a/var/cron/tabs/root; "
        "cp $R/../hints $R/t/a/var/run/ld-elf.so.hints",
        2,
    ),
}
