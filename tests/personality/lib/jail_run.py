"""The order in which jail(8) starts and stops a jail, and how it takes back what failed (facts 2.3, 2.5)."""

from __future__ import annotations

import _socket
import os
import re
import stat
import sys

import execs
import fstab
import jailparams
import mount_cmd
import prison
import state as kept
import umount_cmd
import vfs
from jailparams import one, true

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

Params = dict[str, list[str]]


class JailError(Exception):
    """A step that failed; what it says is preceded by the jail's name."""


class Jail:
    """One jail with its configuration, on its way up or down."""

    def __init__(self, params: Params, *, verbose: bool = False) -> None:
        self.params = params
        self.verbose = verbose
        self.name = one(params, "name")
        self.path = one(params, "path")
        self.jid = 0

    def say(self, text: str) -> None:
        print(f"{self.name}: {text}", flush=True)

    # --- commands ----

    def _env(self) -> dict[str, str]:
        return {"JID": str(self.jid), "JNAME": self.name, "JPATH": self.path}

    def hook(self, name: str, *, inside: bool = False) -> None:
        for command in self.params.get(name, []):
            if command.strip():
                argv, background = execs.words(command)
                self._run(argv, command, inside=inside, background=background)

    def command(self) -> None:
        argv = self.params.get("command", [])
        if argv and argv[0]:
            self._run(argv, " ".join(argv), inside=True)

    def _run(self, argv: list[str], shown: str, *, inside: bool, background: bool = False) -> None:
        if self.verbose:
            self.say(f"run command{' in jail' if inside else ''}: {shown}")
        timeout = int(one(self.params, "exec.timeout", "0"))
        clean = true(self.params, "exec.clean")
        if inside:
            with kept.locked() as state:
                jail = prison.find(state, self.name)
            if not jail:
                raise JailError(f"{shown}: the jail is gone")
            user = one(self.params, "exec.jail_user")
            system = true(self.params, "exec.system_jail_user")
            if system and not user:
                user, system = ("root", True) if clean else ("", False)
            log = one(self.params, "exec.consolelog")
            if log:
                self.check_path("exec.consolelog", log, is_file=True)
            how = execs.How(jail, clean=clean, home=clean)
            how.user, how.system_user, how.log = user, system, log
        else:
            how = execs.How(None)
            how.user, how.system_user = one(self.params, "exec.system_user"), True
        how.timeout, how.env = timeout, self._env()
        status = execs.run(argv, how, background=background)
        if status:
            why = f"exited on signal {-status}" if status < 0 else "failed"
            raise JailError(f"{shown}: {why}")

    # --- mounts ----

    def check_path(self, what: str, path: str, *, is_file: bool = False, umount: str = "") -> None:
        if not path.startswith("/"):
            raise JailError(f"{what}: {path}: not an absolute pathname")
        if path.startswith(self.path) and path[len(self.path) : len(self.path) + 1] == "/":
            at = self.path
            for part in path[len(self.path) + 1 :].split("/"):
                at = f"{at}/{part}"
                try:
                    mode = os.lstat(at).st_mode
                except FileNotFoundError:
                    if is_file and at == path:
                        break
                    raise JailError(f"{what}: {at}: No such file or directory") from None
                except OSError as error:
                    raise JailError(f"{what}: {at}: {vfs.strerror(error)}") from error
                if stat.S_ISLNK(mode):
                    raise JailError(f"{what}: {at} is a symbolic link")
        if umount:
            with kept.locked() as state:
                entries = vfs.table(state)
                entry = vfs.top(entries, path) if os.path.exists(path) else None
            if entry is None or entry["on"] != os.path.realpath(path):
                raise JailError(f"{what}: {path}: not a mount point")
            if entry["type"] != umount:
                raise JailError(f"{what}: {path}: not a {umount} mount")

    def lines(self) -> list[tuple[str, list[str]]]:
        """Every mount line, from `mount` and then from each mount.fstab, as fields."""
        found = []
        sources = [("mount", self.params.get("mount", []))]
        for path in self.params.get("mount.fstab", []):
            try:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    sources.append((path, file.read().splitlines()))
            except OSError as error:
                raise JailError(f"mount.fstab: {path}: {vfs.strerror(error)}") from error
        for where, lines in sources:
            for line in lines:
                fields = line.partition("#")[0].split()
                if not fields:
                    continue
                if len(fields) < 3:
                    raise JailError(f'{where}: "{line}": missing field')
                try:
                    fields[:2] = [fstab.strunvis(field) for field in fields[:2]]
                except fstab.Malformed:
                    raise JailError(f'{where}: "{line}": bad escape') from None
                found.append((where, fields))
        return found

    def mount(self, where: str, fields: list[str]) -> None:
        source, target, fstype = fields[:3]
        self.check_path(where, target)
        options = ["-o", fields[3]] if len(fields) > 3 else []
        self._program("/sbin/mount", mount_cmd.main, ["-t", fstype, *options, source, target])

    def umount(self, where: str, fields: list[str]) -> None:
        self.check_path(where, fields[1], umount=fields[2])
        self._program("/sbin/umount", umount_cmd.main, ["-t", fields[2], fields[1]])

    def _program(self, name: str, main: Callable[[list[str]], int], argv: list[str]) -> None:
        if self.verbose:
            self.say(f"run command: {' '.join([name, *argv])}")
        if main(argv):
            raise JailError(f"{' '.join([name, *argv])}: failed")

    def implicit(self) -> list[tuple[str, list[str]]]:
        number = one(self.params, "devfs_ruleset", "0")
        rules = number if number != "0" else "4"
        known = (
            ("mount.devfs", [".", f"{self.path}/dev", "devfs", f"ruleset={rules}"]),
            ("mount.fdescfs", [".", f"{self.path}/dev/fd", "fdescfs"]),
            ("mount.procfs", [".", f"{self.path}/proc", "procfs"]),
        )
        return [(name, fields) for name, fields in known if true(self.params, name)]

    # --- addresses ----

    def addresses(self) -> list[tuple[str, str]]:
        """(interface or "", address) of ip4.addr and ip6.addr."""
        found = []
        for name, version in (("ip4.addr", 4), ("ip6.addr", 6)):
            for value in self.params.get(name, []):
                parts = re.fullmatch(r"(?:([a-z]+\d+)\|)?([0-9a-fA-F.:]+)(?:/([0-9.]+))?(?: .*)?", value)
                try:
                    if not parts:
                        raise OSError
                    _socket.inet_pton(_socket.AF_INET if version == 4 else _socket.AF_INET6, parts[2])
                except OSError:
                    raise JailError(f"{name}: not an IPv{version} address: {value}") from None
                found.append((parts[1] or one(self.params, "interface"), parts[2]))
        return found

    def alias(self, *, add: bool) -> None:
        with kept.locked() as state:
            for interface, address in self.addresses():
                own = state["interfaces"].get(interface)
                if not interface:
                    if add and not any(address in all_ for all_ in state["interfaces"].values()):
                        raise JailError(f"ip4.addr/ip6.addr: {address}: Can't assign requested address")
                elif own is None:
                    raise JailError(f"ifconfig: interface {interface} does not exist")
                elif add and address not in own:
                    own.append(address)
                elif not add and address in own:
                    own.remove(address)

    # --- the kernel's part ----

    def create(self) -> None:
        hostname = one(self.params, "host.hostname")
        inherit = one(self.params, "host") == "inherit"
        connected = [one(self.params, name) for name in ("ip4", "ip6")]
        with kept.locked() as state:
            if not os.path.isdir(self.path):
                raise JailError(f"path: {self.path}: No such file or directory")
            for address in {address for _, address in self.addresses()}:
                for other in prison.jails(state):
                    theirs = other["addresses"]
                    if address in theirs and (len(theirs) > 1 or len(self.addresses()) > 1):
                        raise JailError(f"{address}: Address already in use")
            jid = state["next_jid"]
            state["next_jid"] += 1
            real = os.path.realpath(self.path)
            try:
                init, started = prison.create(
                    real,
                    None if inherit else hostname,
                    ipc="inherit" not in [one(self.params, f"sysv{kind}") for kind in ("msg", "sem", "shm")],
                    network="inherit" in connected or bool(self.addresses()),
                )
            except OSError as error:
                raise JailError(f"jail_set: {error.strerror}") from error
            self.jid = jid
            if not self.name:
                self.name = str(jid)
            state["jails"][str(jid)] = {
                "jid": jid,
                "name": self.name,
                "path": real,
                "init": init,
                "init_start": started,
                "params": self.params,
                "addresses": [address for _, address in self.addresses()],
                "hostname": hostname if not inherit else os.uname().nodename,
                "persist": True,
            }

    def clear_persist(self) -> None:
        if true(self.params, "persist"):
            return
        with kept.locked() as state:
            jail = prison.find(state, self.name)
            if jail:
                prison.persist(jail, on=False)
        if jail:
            prison.settle(jail)

    def remove(self) -> None:
        with kept.locked() as state:
            jail = prison.find(state, self.name)
        if jail:
            prison.kill(jail)

    def terminate(self) -> None:
        with kept.locked() as state:
            jail = prison.find(state, self.name)
        if jail:
            prison.stop(jail, int(one(self.params, "stop.timeout", "10")))

    # --- up and down ----

    def check(self, major: int) -> None:
        for name, values in self.params.items():
            if not jailparams.exists(name, major):
                raise JailError(f"unknown parameter: {name}")
            problem = jailparams.check(name, values)
            if problem:
                raise JailError(problem)
        if not self.path:
            raise JailError("path: no path is given, and the fact sheet knows no default")
        if not self.path.startswith("/"):
            raise JailError(f"path: {self.path}: not an absolute path")
        if self.path != "/" and self.path.endswith("/"):
            raise JailError(f"path: {self.path}: trailing slash (defeats the symlink test; refused here)")
        if self.name and (self.name.isdigit() or "." in self.name):
            raise JailError(f"name: {self.name}: refused")
        runs = [value for name in ("exec.start", "command") for value in self.params.get(name, []) if value]
        if not true(self.params, "persist") and not runs:
            raise JailError("at least one of persist, exec.start or command is needed")
        one_stack = self.params.get("ip4.addr") or self.params.get("ip6.addr")
        if "vnet" in self.params and one_stack and one(self.params, "vnet", "new") == "new":
            raise JailError("vnet jails cannot have IP address restrictions")

    def start(self) -> None:
        """Raises JailError after undoing, in reverse, what was done."""
        undo: list[Callable[[], None]] = []

        def mounted(pairs: list[tuple[str, list[str]]]) -> None:
            for where, fields in pairs:
                self.mount(where, fields)
                undo.append(lambda where=where, fields=fields: self.umount(where, fields))

        try:
            self.hook("exec.prepare")
            self.alias(add=True)
            undo.append(lambda: self.alias(add=False))
            mounted(self.lines())
            mounted(self.implicit())
            self.hook("exec.prestart")
            self.create()
            undo.append(self.remove)
            self.hook("exec.created")
            self.hook("exec.start", inside=True)
            self.command()
            self.clear_persist()
            self.hook("exec.poststart")
        except JailError as error:
            print(f"jail: {self.name}: {error}", file=sys.stderr, flush=True)
            for step in reversed(undo):
                try:
                    step()
                except JailError as more:
                    print(f"jail: {self.name}: {more}", file=sys.stderr, flush=True)
            raise

    def stop(self, running: dict[str, Any]) -> int:
        """0, or 1 if a step after the removal failed; JailError if the jail was left alone."""
        self.jid = running["jid"]
        self.hook("exec.prestop")
        self.hook("exec.stop", inside=True)
        self.terminate()
        self.remove()
        failed = 0
        steps: list[Callable[[], None]] = [lambda: self.hook("exec.poststop")]
        for where, fields in [*reversed(self.implicit()), *reversed(self.lines())]:
            steps.append(lambda where=where, fields=fields: self.umount(where, fields))
        steps += [lambda: self.alias(add=False), lambda: self.hook("exec.release")]
        for step in steps:
            try:
                step()
            except JailError as error:
                print(f"jail: {self.name}: {error}", file=sys.stderr, flush=True)
                failed = 1
        return failed
