"""`layout base build debian`: an archive made by mmdebstrap, kept under a hash of what it is made from."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Sequence

import msgspec

from layout.actions.context import Context
from layout.actions.telling import Progress
from layout.core import aptsources
from layout.core.errors import LayoutError, UsageError
from layout.host import hostfiles, locks, records, run
from layout.host.beneath import Dir, open_root, remove_tree

CACHE = "/var/cache/layout"
_RECIPE = "1"
"""Counts up when the same inputs begin to give another archive."""
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_NEW = ".new-"
_LEFT = re.compile(r"\.new-(.+\.tar\.zst)\.[0-9a-f]{8}")
_APT = "/etc/apt"
_SIZE = 1 << 20

VARIANTS = ("minbase", "apt", "essential")
"""Of mmdebstrap: those that have a package manager's database, from the largest to the smallest."""

# The session of the build ends with us, with everything that a package's scripts may have started, and what
# it mounts is seen by nobody else.
_ALONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
)
_NO_PACKAGE = re.compile(
    r"E: (?:Unable to locate package (?P<a>\S+)|Package '(?P<b>[^']+)' has no installation candidate)"
)
_NO_NETWORK = re.compile(
    r"(Temporary failure resolving|Could not resolve|Could not connect|Network is unreachable"
    r"|Connection timed out|Connection refused|No route to host)[^\n]*"
)
_NO_SUITE = re.compile(r"The repository '(?P<a>[^']+)' does not have a Release file")
_NO_SPACE = re.compile(r"No space left on device|not enough free space|Disk quota exceeded")


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an archive is made from; the same inputs are built once."""

    suite: str
    packages: tuple[str, ...]
    variant: str
    mirrors: tuple[str, ...]
    """Empty: those that mmdebstrap knows."""

    def key(self) -> str:
        """Return a hash of the inputs, 16 hexadecimal digits."""
        return hashlib.sha256(msgspec.json.encode([_RECIPE, self])).hexdigest()[:16]


class BuiltRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of an archive that was built, beside it as FILE.toml."""

    inputs: Inputs
    created: str
    """RFC 3339, UTC."""
    bytes: int
    sha256: str
    seconds: int = 0
    """How long it took."""


class Built(msgspec.Struct, frozen=True):
    """An archive for `--base`."""

    path: str
    cached: bool
    """It was there already."""
    record: BuiltRecord


def inputs_of(
    context: Context,
    suite: str,
    packages: Iterable[str],
    profiles: Iterable[str],
    variant: str,
    mirrors: Sequence[str],
) -> Inputs:
    """Check what was asked for and complete it. Raises UsageError."""
    if not _SUITE.fullmatch(suite):
        raise UsageError("--suite", repr(suite), "the name of a suite, such as bookworm")
    if variant not in VARIANTS:
        raise UsageError("--variant", repr(variant), f"one of {', '.join(VARIANTS)}")
    wanted = {name for name in packages if name}
    for profile in profiles:
        wanted.update(context.profile(profile).linux.packages)
    for name in wanted:
        if not _PACKAGE.fullmatch(name):
            raise UsageError("--packages", repr(name), "names of packages, with commas between them")
    for mirror in mirrors:
        if not mirror.startswith(("deb ", "http://", "https://", "file:", "copy:")) or "\n" in mirror:
            raise UsageError("--mirror", repr(mirror), "a URI, or a line of sources.list(5)")
    return Inputs(suite, tuple(sorted(wanted)), variant, tuple(mirrors or host_mirrors(suite)))


def host_mirrors(suite: str) -> list[str]:
    """Return the archives of a suite that this host uses itself."""
    paths = [f"{_APT}/sources.list"]
    with contextlib.suppress(FileNotFoundError, LayoutError), open_root(f"{_APT}/sources.list.d") as parts:
        paths += [f"{parts.path}/{name}" for name in parts.names()]
    texts = {path: hostfiles.read_text(path) for path in paths if path.endswith((".list", ".sources"))}
    return aptsources.mirrors({path: text for path, text in texts.items() if text}, suite)


def cache_path(context: Context) -> str:
    """Return the directory of archives: /var/cache/layout, or below ROOT when that was given explicitly."""
    site = context.site
    return f"{site.root}/.layout/cache" if site.etc == f"{site.root}/etc" else CACHE


def build(
    context: Context, inputs: Inputs, output: str | None, tell: Progress, *, fresh: bool = False
) -> Built:
    """Build the archive, or find it: at `output`, or in the cache.

    `fresh`: build it even so. Raises UsageError, LayoutError; no part of an archive is left then.
    """
    run.require("mmdebstrap", "the package mmdebstrap")
    run.require("unshare", "the package util-linux")
    head, name = _place(context, inputs, output)
    with hostfiles.make_directories(head, 0o700) as directory:
        lock = f".{name}.lock"
        with (
            locks.held(directory, lock, "to be the only run that builds this archive"),
            contextlib.ExitStack() as stack,
        ):
            # While it is ours: whoever has just opened it sees that it is gone, and makes a new one.
            stack.callback(directory.unlink, lock)
            _sweep(directory, name)
            known = records.read(directory, f"{name}.toml", BuiltRecord)
            there = directory.lstat(name)
            if there is not None and (known is None or known.inputs != inputs) and output is not None:
                hint = "name another file, or remove it"
                raise UsageError(output, "a file of another making", "nothing there yet", hint)
            if known is not None and there is not None and not fresh:
                tell("checking what is there", 0, 0)
                if (known.bytes, known.sha256) == _digest(directory, name):
                    return Built(f"{head}/{name}", cached=True, record=known)
            record = _build(directory, head, name, inputs, tell)
    return Built(f"{head}/{name}", cached=False, record=record)


def cached(context: Context) -> dict[str, BuiltRecord]:
    """Return what is known of the archives in the cache, by path. Raises LayoutError."""
    path = cache_path(context)
    found = {}
    with contextlib.suppress(FileNotFoundError), open_root(path) as directory:
        names = directory.names()
        for name in names:
            record = records.read(directory, f"{name}.toml", BuiltRecord) if f"{name}.toml" in names else None
            if record is not None:
                found[f"{path}/{name}"] = record
    return found


def _place(context: Context, inputs: Inputs, output: str | None) -> tuple[str, str]:
    if output is None:
        return cache_path(context), f"debian-{inputs.suite}-{inputs.key()}.tar.zst"
    return output_place(output)


def output_place(output: str) -> tuple[str, str]:
    """Return directory and name of an archive that is to be written. Raises UsageError."""
    head, _, name = hostfiles.absolute(output).rpartition("/")
    if not name.endswith(".tar.zst"):
        raise UsageError("--output", repr(output), "the name of a file that ends in .tar.zst")
    head = hostfiles.canonical(head or "/")
    try:
        open_root(head).close()
    except FileNotFoundError:
        raise UsageError(head, "no such directory", "the directory of --output", f"mkdir -p {head}") from None
    return head, name


def _sweep(directory: Dir, name: str) -> None:
    """Remove what builds left that were killed: of this archive, and of any that nobody builds now."""
    for entry in directory.names():
        found = _LEFT.fullmatch(entry)
        if found and (found[1] == name or locks.holder(directory, f".{found[1]}.lock") is None):
            remove_tree(directory, entry)


def _digest(directory: Dir, name: str, mode: int | None = None) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    fd = directory.open_file(name)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        while piece := os.read(fd, _SIZE):
            digest.update(piece)
            size += len(piece)
    finally:
        os.close(fd)
    return size, digest.hexdigest()


def _build(directory: Dir, head: str, name: str, inputs: Inputs, tell: Progress) -> BuiltRecord:
    started = time.monotonic()
    work = f"{_NEW}{name}.{secrets.token_hex(4)}"
    directory.make_dir(work, 0o700)
    try:
        _mmdebstrap(f"{head}/{work}", inputs, tell)
        with directory.open(work) as inside:
            size, digest = _digest(inside, "base.tar.zst", mode=0o600)  # it holds keys that postinst made
            record = BuiltRecord(inputs, records.now(), size, digest, round(time.monotonic() - started))
            for old in (f"{name}.toml", name):
                if directory.lstat(old) is not None:
                    directory.unlink(old)
            inside.move("base.tar.zst", directory, name)
        directory.sync()
        records.write(directory, f"{name}.toml", record)
        return record
    finally:
        _remove(directory, work)


def _remove(directory: Dir, work: str) -> None:
    """Remove the working directory. After an interrupt the processes that write there are just dying."""
    for _ in range(20):
        try:
            remove_tree(directory, work)
        except (OSError, LayoutError):
            time.sleep(0.1)
        else:
            return
    remove_tree(directory, work)


def _mmdebstrap(work: str, inputs: Inputs, tell: Progress) -> None:
    """Let mmdebstrap write base.tar.zst into the directory `work`. Raises LayoutError."""
    words = [*_ALONE, "mmdebstrap", "--mode=root", f"--variant={inputs.variant}", "--format=tar"]
    # Whatever a power cut would leave of the tree is thrown away anyway.
    words.append("--dpkgopt=force-unsafe-io")
    if inputs.packages:
        words.append(f"--include={','.join(inputs.packages)}")
    words += [inputs.suite, f"{work}/base.tar.zst", *inputs.mirrors]
    step = f"building {inputs.suite}"

    def line(text: str) -> None:
        nonlocal step
        if text.startswith("I: "):
            step = f"{inputs.suite}: {text[3:].strip().rstrip('.')}"
        tell(step, 0, 0)

    proxies = {
        key: value
        for key, value in os.environ.items()
        if key.lower() in {"http_proxy", "https_proxy", "no_proxy"}
    }
    tell(step, 0, 0)
    try:
        run.run(*words, env={"TMPDIR": work, **proxies}, lines=line)
    except run.CommandError as error:
        raise _explained(error, inputs) from None


def _explained(error: run.CommandError, inputs: Inputs) -> LayoutError:
    said = f"{error.stderr}\n{error.stdout}"
    missing = [found["a"] or found["b"] for found in _NO_PACKAGE.finditer(said)]
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        hint = "check the name; --mirror adds archives"
        return LayoutError(names, f"no such package in {inputs.suite}", "packages of that suite", hint)
    if _NO_SPACE.search(said):
        hint = "a build needs about 1 GB; nothing was left there"
        return LayoutError(f"base {inputs.suite}", "no space left", "room for the base", hint)
    found = _NO_NETWORK.search(said)
    if found is not None:
        hint = "check the network of this host, or give --mirror"
        return LayoutError(f"base {inputs.suite}", found[0].strip(), "to reach its archives", hint)
    found = _NO_SUITE.search(said)
    if found is not None:
        return LayoutError(found["a"], "no such suite there", "a suite of that archive", "check --suite")
    lines = [line for line in said.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("E:", "W:"))] or lines
    return LayoutError("mmdebstrap", " / ".join(told[-4:]) or f"exit status {error.status}", "exit status 0")
