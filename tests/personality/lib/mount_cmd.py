"""mount(8) and mount_nullfs(8) (facts 1.2, 1.3, 1.5, 1.6, 1.8)."""

from __future__ import annotations

import os
import sys

import fstab
import libxo
import options as getopt
import state as kept
import vfs

TYPE_CHECKING = False  # typing takes longer to import than some of these programs to run
if TYPE_CHECKING:
    from typing import Any


USAGE = (
    "usage: mount [-adflLpruvw] [-F fstab] [-o options] [-t ufs | external_type]\n"
    "       mount [-dfpruvw] special | node\n"
    "       mount [-dfpruvw] [-o options] [-t ufs | external_type] special node"
)
CONSUMED = ("noauto", "late", "failok")


def usage(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def warn(program: str, *parts: object) -> int:
    sys.stdout.flush()
    print(": ".join([program, *map(str, parts)]), file=sys.stderr)
    return 1


# --- listing ----


def _pad(text: str) -> str:
    width = len(text.encode("utf-8", "surrogateescape"))
    return text + ("\t\t\t" if width < 8 else "\t\t" if width < 16 else "\t" if width < 24 else " ")


def _dump_pass(entry: vfs.Entry, lines: list[fstab.Entry]) -> tuple[int, int]:
    for line in lines:
        if entry["from"] == line.spec or entry["on"] == line.file:
            return line.freq, line.passno
    return 0, 0


def show(entries: list[vfs.Entry], *, as_fstab: bool, verbose: bool, json: bool, pretty: bool) -> None:
    lines = fstab.load(None) if as_fstab and os.path.exists("/etc/fstab") else []
    out: list[dict[str, Any]] = []
    text: list[str] = []
    for entry in entries:
        if as_fstab:
            dump, passno = _dump_pass(entry, lines)
            opts = ",".join(vfs.words_of(entry))
            keys = ("device", "mntpoint", "fstype", "opts", "dump", "pass")
            out.append(
                dict(zip(keys, (entry["from"], entry["on"], entry["type"], opts, dump, passno), strict=True))
            )
            tail = f"{entry['type']}\t{opts}" + ("\t" if len(opts) < 8 else " ")
            text.append(f"{_pad(entry['from'])}{_pad(entry['on'])}{tail}{dump} {passno}")
            continue
        opts_list = vfs.phrases(entry)
        one = {"special": entry["from"], "node": entry["on"], "fstype": entry["type"], "opts": opts_list}
        if verbose:
            one["fsid"] = vfs.fsid_text(entry)
        out.append(one)
        extra = [f"fsid {one['fsid']}"] if verbose else []
        text.append(f"{entry['from']} on {entry['on']} ({', '.join([entry['type'], *opts_list, *extra])})")
    if json:
        libxo.emit({"mount": {"fstab" if as_fstab else "mounted": out}}, pretty=pretty)
        return
    sys.stdout.buffer.write("".join(line + "\n" for line in text).encode("utf-8", "surrogateescape"))
    sys.stdout.flush()


# --- mounting ----


def split_words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def nullfs(words: list[str], source: str, target: str) -> int:
    """mount_nullfs(8): both ends are made canonical."""
    program = "mount_nullfs"
    bad = vfs.check_words("nullfs", words)
    if bad is not None:
        return warn(program, f"-o {bad}: option not supported")
    ends = []
    for path in (target, source):
        try:
            ends.append(os.path.realpath(path, strict=True))
        except OSError as error:
            return warn(program, path, vfs.strerror(error))
    on, lower = ends
    if not (os.path.isdir(on) or os.path.isfile(on)):
        return warn(program, on, "Not a directory")
    try:
        with kept.locked() as state:
            if "update" in words:
                entry = vfs.top(vfs.table(state), on)
                if entry is None or entry["on"] != on:
                    raise vfs.VfsError(22, "not currently mounted")
                vfs.update(state, entry, words)
            else:
                vfs.mount(state, "nullfs", lower, on, words)
    except vfs.VfsError as error:
        return warn(program, on, error)
    return 0


def internal(fstype: str, words: list[str], source: str, on: str) -> int:
    """nmount(2) inside mount itself."""
    if fstype not in vfs.OWN:
        return warn("mount", on, vfs.VfsError(19))
    bad = vfs.check_words(fstype, words)
    if bad is not None:
        return warn("mount", fstype, f"mount option <{bad}> is unknown", "Invalid argument")
    try:
        with kept.locked() as state:
            if "update" in words:
                entry = vfs.top(vfs.table(state), on)
                if entry is None or entry["on"] != on:
                    raise vfs.VfsError(22, "not currently mounted")
                vfs.update(state, entry, words)
            else:
                vfs.mount(state, fstype, source, on, words)
    except vfs.VfsError as error:
        return warn("mount", on, error)
    return 0


class Run:
    """One invocation: its flags, and what it mounts."""

    def __init__(self, flags: set[str], given: list[str]) -> None:
        self.debug, self.verbose, self.flags = "d" in flags, "v" in flags, flags
        self.given = given + [{"r": "ro", "w": "rw", "u": "update"}[f] for f in "rwu" if f in flags]

    def mount(self, fstype: str, source: str, target: str, options: str) -> int:
        words = split_words(options) + self.given
        program = next((word.partition("=")[2] for word in words if word.startswith("mountprog=")), "")
        if program:
            return warn("mount", program, "mountprog is not part of the personality")
        words = [w for w in words if w not in CONSUMED and not w.startswith(("userquota", "groupquota"))]
        helper = fstype in vfs.HELPERS
        try:
            on = os.path.realpath(target, strict=True)
        except OSError as error:
            return warn("mount", target, vfs.strerror(error))
        if not os.path.isdir(on) and not (fstype == "nullfs" and os.path.isfile(on)):
            return warn("mount", target, "Not a directory")
        if self.debug:
            shown = [part for word in words for part in ("-o", word)]
            print(
                " ".join(
                    [f"exec: mount_{fstype}" if helper else f"mount -t {fstype}", *shown, source, target]
                )
            )
            return 0
        if helper and fstype != "nullfs":
            return warn("mount", f"exec mount_{fstype} not found", "No such file or directory")
        status = nullfs(words, source, on) if helper else internal(fstype, words, source, on)
        if status == 0 and self.verbose:
            with kept.locked() as state:
                entry = vfs.top(vfs.table(state), on)
            if entry:
                show([entry], as_fstab=False, verbose=True, json=False, pretty=False)
        return status

    def mounted(self, line: fstab.Entry, entries: list[vfs.Entry]) -> bool:
        """Facts 1.3: mountpoint and type decide; the source is not looked at."""
        on = os.path.realpath(line.file) if os.path.exists(line.file) else line.file
        return any(entry["on"] == on and entry["type"] == line.type for entry in entries)

    def all(self, path: str | None, types: str | None) -> int:
        failed = 0
        lines = fstab.load(path)
        with kept.locked() as state:
            entries = vfs.table(state)
        for line in lines:
            words = line.words
            if line.kind == "sw" or "noauto" in words or not fstab.chosen(line.type, types):
                continue
            if ("late" in words and not self.flags & {"l", "L"}) or (
                "late" not in words and "L" in self.flags
            ):
                continue
            updating = "update" in words or "u" in self.flags
            if not updating and self.mounted(line, entries):
                continue
            if self.mount(line.type, line.spec, line.file, line.options) and "failok" not in words:
                failed = 1
        return failed


def _one(run: Run, name: str, path: str | None) -> int:
    """`mount NODE` and `mount SPEC`: a line of the fstab, or, to update, of the table."""
    if "u" in run.flags:
        with kept.locked() as state:
            entries = vfs.table(state)
        real = os.path.realpath(name)
        for entry in reversed(entries):
            if real == entry["on"]:
                return run.mount(entry["type"], entry["from"], entry["on"], "")
        return warn("mount", f"unknown special file or file system {name}")
    lines = fstab.load(path)
    for line in [one for one in lines if one.file == name] + [one for one in lines if one.spec == name]:
        if line.kind == "sw":
            return warn("mount", name, "has unknown file system type")
        return run.mount(line.type, line.spec, line.file, line.options)
    return warn("mount", name, "unknown special file or file system")


def main(argv: list[str]) -> int:
    kept.guard()
    json = pretty = False
    if int(kept.read()["release"].split(".")[0]) >= 14:  # libxo came to mount(8) in 2022
        json, pretty, argv = libxo.split(argv)
    try:
        given, rest = getopt.getopt(argv, "aF:t:lLdvpo:urw")
    except getopt.GetoptError as error:
        return usage(f"mount: illegal option -- {error.opt}\n{USAGE}")
    if "--" in rest[:1]:
        rest = rest[1:]
    flags = {flag[1] for flag, _ in given}
    values = {flag[1]: value for flag, value in given}
    words = [word for flag, value in given if flag == "-o" for word in split_words(value)]
    path, types = values.get("F"), values.get("t")
    if any(word.startswith("--") for word in rest):
        return usage(USAGE)
    run = Run(flags, words)
    try:
        if "a" in flags:
            return usage(USAGE) if rest else run.all(path, types)
        if not rest:
            if flags - set("vptF"):
                return usage(USAGE)
            with kept.locked() as state:
                entries = [entry for entry in vfs.table(state) if fstab.chosen(entry["type"], types)]
            show(entries, as_fstab="p" in flags, verbose="v" in flags, json=json, pretty=pretty)
            return 0
        if len(rest) == 1:
            return _one(run, rest[0], path)
        if len(rest) == 2:
            return run.mount(types or "ufs", rest[0], rest[1], "")
    except OSError as error:
        return warn("mount", error.filename, vfs.strerror(error))
    return usage(USAGE)


def main_nullfs(argv: list[str]) -> int:
    kept.guard()
    text = "usage: mount_nullfs [-o options] target mount-point"
    try:
        given, rest = getopt.getopt(argv, "o:")
    except getopt.GetoptError:
        return usage(text)
    if len(rest) != 2:
        return usage(text)
    return nullfs([word for _, value in given for word in split_words(value)], *rest)
