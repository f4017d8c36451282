"""jail(8): its command line (facts 2.6), over jail_run and jailconf."""

from __future__ import annotations

import os
import sys

import jailconf
import jailparams
import options as getopt
import prison
import state as kept
import vfs
from jail_run import Jail, JailError

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


USAGE = (
    "usage: jail [-dhilqv] [-J jid_file] [-p limit] -[cmr] [-f conf_file] [jail]\n"
    "       jail [-iqv] [-J jid_file] -[cm] param=value ... [command=command ...]\n"
    "       jail -R jail\n       jail -e separator [-f conf_file]"
)


def warn(text: object) -> int:
    sys.stdout.flush()
    print(f"jail: {text}", file=sys.stderr, flush=True)
    return 1


class Program:
    """One invocation of jail."""

    def __init__(self, flags: set[str], values: dict[str, str]) -> None:
        self.flags, self.values = flags, values
        self.quiet, self.verbose = "q" in flags, "v" in flags
        self.config: jailconf.Config | None = None
        self.major = int(kept.read()["release"].split(".")[0])

    def running(self, name: str) -> dict[str, Any] | None:
        with kept.locked() as state:
            return prison.find(state, name)

    # --- one jail ----

    def create(self, params: dict[str, list[str]], chain: tuple[str, ...] = ()) -> int:
        jail = Jail(params, verbose=self.verbose)
        if jail.name and self.running(jail.name):
            if "m" in self.flags:
                return self.modify(params)
            return warn(f'"{jail.name}" already exists')
        try:
            jail.check(self.major)
            for other in params.get("depend", []):
                if other in chain:
                    return warn(f"{jail.name}: depend: loop with {other}")
                if not self.running(other):
                    if not self.config or other not in self.config.jails:
                        return warn(f'{jail.name}: depends on undefined jail "{other}"')
                    if self.create(self.config.parameters(other), (*chain, jail.name)):
                        return warn(f"{jail.name}: skipped")
        except (JailError, jailconf.ConfError) as error:
            return warn(f"{jail.name}: {error}" if jail.name else error)
        try:
            jail.start()
        except JailError:
            return 1
        if "i" in self.flags:
            print(jail.jid)
        elif not self.quiet:
            print(f"{jail.name}: created")
        if "J" in self.values:
            with open(self.values["J"], "w", encoding="utf-8") as file:
                file.write(f"jid={jail.jid} name={jail.name} path={jail.path}\n")
        return 0

    def modify(self, params: dict[str, list[str]]) -> int:
        name = jailparams.one(params, "name")
        for key, values in params.items():
            if not jailparams.exists(key, self.major):
                return warn(f"{name}: unknown parameter: {key}")
            problem = jailparams.check(key, values)
            if problem:
                return warn(f"{name}: {problem}")
        with kept.locked() as state:
            jail = prison.find(state, name)
            if not jail:
                return warn(f'"{name}" not found')
            for key in jailparams.CREATE_ONLY & set(params):
                if (
                    params[key] != jail["params"].get(key)
                    and os.path.realpath(params[key][0]) != jail["path"]
                ):
                    if "r" in self.flags:
                        break
                    return warn(f"{name}: {key}: cannot be changed after creation")
            else:
                jail["params"] |= params
                if "persist" in params:
                    prison.persist(jail, on=jailparams.true(params, "persist"))
                return 0
        return self.remove(name) or self.create(params)

    def remove(self, name: str) -> int:
        jail = self.running(name)
        if not jail:
            return warn(f'"{name}" not found')
        configured = self.config if self.config and jail["name"] in self.config.jails else None
        if "R" in self.flags or not configured:
            # Not in the configuration: just killed. No exec.stop, no umount (facts 2.6).
            prison.kill(jail)
            if not self.quiet:
                print(f"{jail['name']}: removed")
            return 0
        try:
            params = configured.parameters(jail["name"])
            stopping = Jail(params, verbose=self.verbose)
            for other in params.get("depend", []):
                if other not in configured.jails:
                    return warn(f'{name}: depends on undefined jail "{other}"')
            status = stopping.stop(jail)
        except (JailError, jailconf.ConfError) as error:
            return warn(f"{name}: {error}")
        if not self.quiet:
            print(f"{jail['name']}: removed")
        return status

    # --- several ----

    def load(self) -> int:
        path = self.values.get("f", "/etc/jail.conf")
        try:
            self.config = jailconf.load(path)
        except jailconf.ConfError as error:
            return warn(error)
        except OSError as error:
            if "r" in self.flags and "c" not in self.flags:
                return 0
            return warn(f"{path}: {vfs.strerror(error)}")
        return 0

    def show(self) -> int:
        assert self.config is not None
        separator = self.values["e"]
        try:
            for name in self.config.jails:
                parts = []
                for key, values in self.config.parameters(name).items():
                    bare = jailparams.kind(key) == "bool" and values == ["true"]
                    parts += [key] if bare else [f"{key}={value}" for value in values]
                print(separator.join(parts))
        except jailconf.ConfError as error:
            return warn(error)
        return 0

    def named(self, names: list[str]) -> list[str]:
        assert self.config is not None
        if names == ["*"] or (not names and "r" not in self.flags):
            return self.config.jails
        return names

    def run(self, rest: list[str]) -> int:
        creating, removing = bool(self.flags & {"c", "m"}), "r" in self.flags
        direct = any("=" in word for word in rest)
        if direct:
            if not creating or (removing and "m" not in self.flags):
                return usage()
            params = jailconf.from_arguments(rest)
            if "m" in self.flags and "c" not in self.flags:
                return self.modify(params)
            return self.create(params)
        if "R" in self.flags:
            return max((self.remove(name) for name in rest), default=1)
        if self.load():
            return 1
        if self.config is None:
            self.config = jailconf.Config()
        status = 0
        if removing and "m" not in self.flags:
            if not rest:
                return usage()
            with kept.locked() as state:
                up = [jail["name"] for jail in prison.jails(state)]
            order = list(self._depth_first(up))[::-1]
            targets = order if rest == ["*"] else rest
            for name in targets:
                if "c" in self.flags and not self.running(name):
                    continue
                status |= self.remove(name)
            if "c" not in self.flags or status:
                return status
            rest = targets
        for name in self.named(rest):
            if name not in self.config.jails:
                status |= warn(f'"{name}" not found')
                continue
            if not rest and self.running(name):
                continue  # started as a dependency, or before
            try:
                params = self.config.parameters(name)
            except jailconf.ConfError as error:
                status |= warn(error)
                continue
            only_modify = "m" in self.flags and "c" not in self.flags
            status |= self.modify(params) if only_modify else self.create(params)
        return status

    def _depth_first(self, names: list[str]) -> list[str]:
        """Dependencies before what depends on them."""
        done: list[str] = []

        def visit(name: str) -> None:
            if name in done or name not in names:
                return
            if self.config and name in self.config.jails:
                for other in self.config.parameters(name).get("depend", []):
                    visit(other)
            done.append(name)

        for name in names:
            visit(name)
        return done


def usage() -> int:
    print(USAGE, file=sys.stderr)
    return 1


def main(argv: list[str]) -> int:
    kept.guard()
    try:
        given, rest = getopt.getopt(argv, "cde:f:iJ:mp:qRrv")
    except getopt.GetoptError as error:
        print(f"jail: illegal option -- {error.opt}", file=sys.stderr)
        return usage()
    flags = {flag[1] for flag, _ in given}
    values = {flag[1]: value for flag, value in given}
    if os.geteuid() != 0 and "e" not in flags:
        return warn("jail_set: Operation not permitted")
    program = Program(flags, values)
    if "p" in values and not values["p"].isdigit():
        return usage()
    if "e" in flags:
        if flags & set("cmrRiJ") or rest:
            return usage()
        return program.load() or program.show()
    if "R" in flags and (flags & set("cmrf") or not rest):
        return usage()
    if not flags & set("cmrR"):
        return usage()
    return program.run(rest)
