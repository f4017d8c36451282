"""sysctl(8), uname(1), freebsd-version(1)."""

from __future__ import annotations

import os
import sys

import jailparams
import options as getopt
import state as kept

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


def numbers(release: str) -> int:
    """osreldate: 14.3 is 1403000, 15.0 is 1500068."""
    major, _, minor = release.partition("-")[0].partition(".")
    return int(major) * 100000 + int(minor or 0) * 1000 + (68 if (major, minor) == ("15", "0") else 0)


def machine() -> tuple[str, str]:
    return {"x86_64": ("amd64", "amd64"), "aarch64": ("arm64", "aarch64")}.get(
        os.uname().machine, (os.uname().machine,) * 2
    )


def table(state: dict[str, Any]) -> dict[str, str]:
    release = state["release"]
    values = {
        "kern.ostype": "FreeBSD",
        "kern.osrelease": release,
        "kern.osreldate": str(numbers(release)),
        "kern.version": f"FreeBSD {release} GENERIC",
        "kern.hostname": os.uname().nodename,
        "kern.securelevel": "-1",
        "kern.features.nullfs": "1",
        "hw.machine": machine()[0],
        "hw.machine_arch": machine()[1],
        "hw.ncpu": str(os.cpu_count() or 1),
        "vfs.usermount": "0",
        "vfs.nullfs.cache_vnodes": "1",
        "vfs.recursive_forced_unmount": "0",
        "security.bsd.see_other_uids": "1",
        "security.jail.jailed": "0",
        "security.jail.vnet": "0",
        "security.jail.children.max": "999999",
        "security.jail.children.cur": str(len(state["jails"])),
        "security.jail.enforce_statfs": "2",
        "security.jail.devfs_ruleset": "0",
    }
    major = int(release.split(".")[0])
    names = [
        *jailparams.BOOLS,
        *jailparams.STRINGS,
        *jailparams.INTS,
        *jailparams.CHOICES,
        "ip4.addr",
        "ip6.addr",
    ]
    names += [f"allow.{name}" for name in jailparams.ALLOW_NEWER if major >= 16]
    names += ["meta", "env"] if major >= 15 else []
    values |= {f"security.jail.param.{name}": "0" for name in names}
    return values | state["sysctl"]


WRITABLE = ("vfs.usermount", "vfs.recursive_forced_unmount", "vfs.nullfs.cache_vnodes", "kern.securelevel")


def main(argv: list[str]) -> int:
    kept.guard()
    usage = "usage: sysctl [-dehiNnq] name[=value] ..."
    try:
        given, names = getopt.getopt(argv, "adehiNnq")
    except getopt.GetoptError:
        print(usage, file=sys.stderr)
        return 1
    flags = {flag[1] for flag, _ in given}
    status = 0
    with kept.locked() as state:
        values = table(state)
        if "a" in flags:
            names = sorted(values)
        if not names:
            print(usage, file=sys.stderr)
            return 1
        for word in names:
            name, assigned, new = word.partition("=")
            below = sorted(known for known in values if known == name or known.startswith(f"{name}."))
            if not below:
                if "i" not in flags:
                    print(f"sysctl: unknown oid '{name}'", file=sys.stderr)
                    status = 1
                continue
            if assigned:
                if name not in WRITABLE or os.geteuid() != 0:
                    print(f"sysctl: {name}={new}: Operation not permitted", file=sys.stderr)
                    status = 1
                    continue
                if name == "kern.securelevel" and int(new) < int(values[name]):
                    print(f"sysctl: {name}={new}: Operation not permitted", file=sys.stderr)
                    status = 1
                    continue
                print(f"{name}: {values[name]} -> {new}" if "n" not in flags else f"{values[name]} -> {new}")
                state["sysctl"][name] = values[name] = new
                continue
            for known in below:
                text = f"({known})" if "d" in flags else values[known]
                separator = "=" if "e" in flags else ": "
                print(known if "N" in flags else text if "n" in flags else f"{known}{separator}{text}")
    return status


def main_uname(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "abiKmnoprsUv")
    except getopt.GetoptError:
        given, rest = [], ["?"]
    if rest:
        print("usage: uname [-abiKmnoprsUv]", file=sys.stderr)
        return 1
    release = kept.read()["release"]
    values = {
        "s": "FreeBSD",
        "n": os.uname().nodename,
        "r": release,
        "v": f"FreeBSD {release} releng-n0 GENERIC",
        "m": machine()[0],
        "p": machine()[1],
        "i": "GENERIC",
        "o": "FreeBSD",
        "U": str(numbers(release)),
        "K": str(numbers(release)),
        "b": "0" * 40,
    }
    flags = {flag[1] for flag, _ in given} or {"s"}
    if "a" in flags:
        flags |= set("snrvm")
    print(" ".join(values[key] for key in "snrvmpioUKb" if key in flags))
    return 0


def main_version(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "kru")
    except getopt.GetoptError:
        given, rest = [], ["?"]
    if rest:
        print("usage: freebsd-version [-kru]", file=sys.stderr)
        return 1
    for _ in given or [("-u", "")]:
        print(kept.read()["release"])
    return 0
