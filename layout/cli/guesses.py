"""What may have been meant by wrong words: a command of another tool, or options of a jail's own command."""

from __future__ import annotations

import re

_OTHERS = (
    ("list ls ps jls info", "layout status lists the jails"),
    (
        "console login shell enter attach run chroot cmd jexec",
        "layout exec NAME is a shell in the running jail, layout manage NAME one that may change it",
    ),
    (
        "reload apply config edit set",
        "after a change of a profile: layout stop NAME, layout init NAME, layout start NAME",
    ),
    ("create new add setup", "layout init NAME makes a jail"),
    ("delete remove rm purge", "layout destroy NAME removes a jail"),
    ("check test doctor fsck", "layout verify proves the jails; layout selftest attacks some of its own"),
    ("upgrade pkg apt", "packages belong to the base: layout manage --base -- CMD..."),
    ("enable boot", "mounts at boot: layout fstab --install; services: layout render unit NAME, or rc.conf"),
    ("logs log", "layout --json status NAME says where the log is"),
    ("help", "layout --help; layout COMMAND --help"),
    ("version", "layout --version"),
)
"""Commands that other managers of jails and containers have, and what does the same here."""

_WITH_COMMAND = {"exec", "manage"}


def hint(command: str, said: str) -> str:
    """Return what was perhaps meant, by the message of the parser; "" for nothing that is known."""
    word = re.match(r"No such command '([^']*)'", said)
    if command == "" and word is not None:
        return next((meant for words, meant in _OTHERS if word[1] in words.split()), "")
    if command in _WITH_COMMAND and said.startswith("No such option"):
        return f"options of the command come after two dashes: layout {command} NAME -- CMD..."
    return ""
