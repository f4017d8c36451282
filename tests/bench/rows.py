"""The rows of the table, by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.bench import lab
from tests.bench.probing import probe
from tests.bench.report import Row
from tests.bench.thin import thin
from tests.bench.tools import (
    LAYOUT,
    PYTHON,
    Skip,
    compiled,
    isolated,
    mounts_below,
    need,
    report_of,
    rounds,
    spawn,
    volume,
)


class Bench:
    """Sizes, and what several rows share; made when the first row wants it."""

    def __init__(self, work: Path, *, quick: bool) -> None:
        self.work = work
        self.quick = quick
        self.jails = 100 if quick else 1000

    def rounds(self, count: int) -> int:
        """Return how many rounds to run."""
        return 3 if self.quick else count

    @cached_property
    def base(self) -> Path:
        """A base of a few files."""
        return lab.small_base(self.work / "base")

    def site(self, count: int, manage: str = "session") -> lab.Site:
        """Return a site with this many jails."""
        key = (count, manage)
        if key not in self._sites:
            root = self.work / f"jails-{count}-{manage}"
            self._sites[key] = lab.Site(root, self.base, lab.names(count), manage=manage)
        return self._sites[key]

    @cached_property
    def _sites(self) -> dict[tuple[int, str], lab.Site]:
        return {}

    @cached_property
    def archive(self) -> lab.Archive:
        """Archives of 25,000 files."""
        return lab.Archive(
            self.work / "archives", *((2_500, 30_000_000) if self.quick else (25_000, 300_000_000))
        )


# -- start-up ------------------------------------------------------------------------------------------------


def startup(bench: Bench) -> Iterator[Row]:
    """Whole processes: `layout --version`, and `layout verify --quick` of three mounted jails."""
    site = bench.site(3)
    typer = [PYTHON, "-c", "import typer"]
    told = rounds(bench.rounds(21), typer=lambda: spawn(typer), version=lambda: spawn([LAYOUT, "--version"]))
    floor = "`python -c 'import typer'`"
    yield Row("`layout --version`", floor, told["version"], told["typer"], 1.2)

    def inside() -> Any:
        spawn(site.layout("mount"))
        return rounds(
            bench.rounds(21),
            typer=lambda: spawn(typer),
            verify=lambda: spawn(site.layout("verify", "--quick")),
        )

    told = isolated(inside)
    yield Row("`layout verify --quick`, 3 jails", floor, told["verify"], told["typer"], 2.0)


# -- mounting ------------------------------------------------------------------------------------------------


def attach(bench: Bench) -> Iterator[Row]:
    """Mounter.attach of three mounts for each jail against the same calls in C."""
    site = bench.site(bench.jails)
    program = compiled("attach")
    listed = bench.work / "names"
    listed.write_text("\n".join(site.names))
    from layout.host.beneath import open_root
    from layout.host.linux import mounts, syscalls

    plans = site.context.jails([])
    trees = [plan.tables.jail for plan in plans]
    step = len(trees) // 10

    def private() -> None:
        place = os.fsencode(site.root)
        syscalls.mount(place, place, None, syscalls.MS_BIND)
        syscalls.mount(b"none", place, None, syscalls.MS_PRIVATE)

    def ours() -> list[float]:
        private()
        with open_root(str(site.root)) as root, mounts.Mounter(root) as mounter:
            mounter.private = True
            tenths = []
            start = time.perf_counter()
            for index, tree in enumerate(trees, 1):
                mounter.attach(tree)
                if index % step == 0:
                    end = time.perf_counter()
                    tenths.append(end - start)
                    start = end
        _expect(mounts_below(str(site.root)), 3 * len(trees))
        return tenths

    def floor() -> Any:
        private()
        tenths = report_of([program, str(site.root), str(listed)])
        _expect(mounts_below(str(site.root)), 3 * len(trees))
        return tenths

    told = rounds(bench.rounds(9), ours=lambda: isolated(ours), floor=lambda: isolated(floor))
    what = f"mount, per entry, {bench.jails:,} jails of 3, in process"
    yield Row(
        what,
        "the same calls in C",
        [sum(tenths) for tenths in told["ours"]],
        [sum(tenths) for tenths in told["floor"]],
        2.0,
        per=3 * len(trees),
    )
    yield Row(
        "the last tenth of them",
        "the first tenth",
        [tenths[-1] for tenths in told["ours"]],
        [tenths[0] for tenths in told["ours"]],
        1.3,
        per=3 * step,
    )


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{found} mounts instead of {wanted}")


def mount(bench: Bench) -> Iterator[Row]:
    """Whole `layout mount` of all jails against `mount -a -T`, same table, each in a fresh namespace."""
    tool = need("mount")
    for manage, each in (("session", 3), ("boot", 7)):
        site = bench.site(bench.jails, manage)
        with_util_linux = [tool, "-a", "-T", str(site.table)]

        def checked(argv: list[str], wanted: int, root: str = str(site.root)) -> float:
            elapsed = spawn(argv)
            _expect(mounts_below(root), wanted)
            return elapsed

        told = rounds(
            bench.rounds(5 if each == 3 else 3),
            ours=lambda site=site, each=each: isolated(
                lambda: checked(site.layout("mount"), each * bench.jails)
            ),
            floor=lambda argv=with_util_linux, each=each: isolated(lambda: checked(argv, each * bench.jails)),
        )
        what = f"whole `layout mount`, {bench.jails:,} jails, {each} entries each"
        yield Row(what, "`mount -a -T`, same table", told["ours"], told["floor"], 1 / 20)


def umount(bench: Bench) -> Iterator[Row]:
    """Whole `layout umount` of 300 jails against `umount -R` of ROOT."""
    count = 50 if bench.quick else 300
    tool = need("umount")
    for manage, each in (("session", 3), ("boot", 7)):
        site = bench.site(count, manage)

        def timed(argv: list[str], site: lab.Site = site, each: int = each) -> float:
            spawn(site.layout("mount"))
            _expect(mounts_below(str(site.root)), each * count)
            elapsed = spawn(argv)
            _expect(mounts_below(str(site.root)), 0)
            return elapsed

        told = rounds(
            bench.rounds(5 if each == 3 else 3),
            ours=lambda site=site, timed=timed: isolated(lambda: timed(site.layout("umount"))),
            floor=lambda site=site, timed=timed: isolated(lambda: timed([tool, "-R", str(site.root)])),
        )
        what = f"whole `layout umount`, {count} jails, {each} entries each"
        yield Row(what, "`umount -R`", told["ours"], told["floor"], 1 / 50)


# -- looking -------------------------------------------------------------------------------------------------


def verify(bench: Bench) -> Iterator[Row]:
    """`verify --quick` in process and as a whole process; linear; without a process for each jail."""
    program = compiled("look")
    few, many = bench.jails // 4, bench.jails
    told = {count: isolated(lambda count=count: _verify(bench, program, count)) for count in (few, many)}
    floor = "mountinfo read, and lstat of what is checked, in C"
    what = f"`verify --quick`, {many:,} jails, in process"
    yield Row(what, floor, told[many]["ours"], told[many]["floor"], 4.0)
    yield Row("the same, whole process", "1 s", told[many]["whole"], [1.0], 1.0)
    few_each = [seconds / few for seconds in told[few]["ours"]]
    many_each = [seconds / many for seconds in told[many]["ours"]]
    yield Row(f"per jail, of {many:,}", f"per jail, of {few:,}", many_each, few_each, 1.3)
    calls = told[many]["processes"]
    if calls is None:
        raise Skip("processes cannot be counted: no strace")
    yield Row("processes that it starts, and itself", "itself", [calls + 1], [1], 1.0, unit="process")


def _verify(bench: Bench, program: str, count: int) -> dict[str, Any]:
    from layout.actions.verify import verify as action

    site = bench.site(count)
    spawn(site.layout("mount"))
    listed = bench.work / f"looked-at-{count}"
    listed.write_text("\n".join(_looked_at(site)))

    def ours() -> float:
        start = time.perf_counter()
        context = site.context
        report = action(context, context.jails([]), quick=True, tell=lambda *_: None)
        elapsed = time.perf_counter() - start
        assert report.ok and len(report.jails) == count
        return elapsed

    told: dict[str, Any] = rounds(
        bench.rounds(9),
        ours=ours,
        floor=lambda: report_of([program, str(listed), "2"])[1],
        whole=lambda: spawn(site.layout("verify", "--quick")),
    )
    told["processes"] = None
    if shutil.which("strace"):
        trace = bench.work / "trace"
        command = [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=clone,clone3,fork,vfork",
            "-e",
            "signal=none",
            "-o",
            str(trace),
        ]
        subprocess.run([*command, *site.layout("verify", "--quick")], check=True, stdout=subprocess.DEVNULL)
        told["processes"] = len(trace.read_text().splitlines())
    return told


def _looked_at(site: lab.Site) -> list[str]:
    """Return every path whose state `verify --quick` compares with the plan, each once."""
    from layout.core.plan import plan_host, plan_mroot

    context = site.context
    plans = context.jails([])
    entries = [*plan_host(), *plan_mroot(context.site.platform, "")]
    entries += [entry for plan in plans for entry in plan.entries]
    paths = [f"{site.root}/{entry.path}" for entry in entries]
    for plan in plans:
        paths += [path for mount in plan.tables.jail for path in (mount.source, mount.target)]
        paths += [
            f"{site.root}/.layout/jails/{plan.jail.name}.toml",
            f"{site.root}/.layout/manage-{plan.jail.name}.lock",
        ]
    return list(dict.fromkeys(paths))


def walk(bench: Bench) -> Iterator[Row]:
    """The walk of s and t against find, with the same question, over the same trees."""
    from layout.host.beneath import open_root
    from layout.host.beneath import walk as look

    find = need("find")
    count = 8 if bench.quick else 40
    root = bench.work / "walked"
    site = lab.Site(root, lab.base_with_skeleton(bench.work / "base-skeleton"), lab.names(count))
    question = ["(", "-perm", "/6000", "-type", "f"]
    for kind in "bcps":
        question += ["-o", "-type", kind]

    def ours() -> float:
        start = time.perf_counter()
        with open_root(str(root)) as top:
            for half in ("s", "t"):
                for name in site.names:
                    with top.open(f"{half}/{name}") as tree:
                        assert not look(tree, trusted=half == "s").unseen
        return time.perf_counter() - start

    argv = [find, str(root / "s"), str(root / "t"), *question, ")", "-print"]
    told = rounds(bench.rounds(11), ours=ours, floor=lambda: spawn(argv))
    entries = sum(len(lab._all(root / half)) for half in ("s", "t"))
    what = f"walk of s and t, {count} jails, {entries:,} entries"
    yield Row(what, "`find -perm /6000 -o -type b,c,p,s`", told["ours"], told["floor"], 2.5)


# -- trees ---------------------------------------------------------------------------------------------------


def _on(bench: Bench, kind: str, size: str, work: Callable[[Path], Any]) -> tuple[str, Any]:
    """Run `work` on a fresh file system of this kind, else on the box's tmpfs; return which it was."""
    try:
        with volume(bench.work, kind, size) as point:
            return kind, work(point)
    except Skip:
        point = bench.work / "on-tmpfs"
        point.mkdir()
        try:
            return "tmpfs", work(point)
        finally:
            shutil.rmtree(point)


def copy(bench: Bench) -> Iterator[Row]:
    """s and t of a jail from a skeleton of 500 files, as init makes them, against cp -a."""
    each = 4 if bench.quick else 8
    count = bench.rounds(9)

    def work(point: Path) -> Any:
        from layout.actions.make import Maker
        from layout.actions.observe import Is, Observation
        from layout.core.model import Copy, Platform
        from layout.host.beneath import load_tree, open_root, write_items

        site = lab.Site(point / "jails", lab.base_with_skeleton(bench.work / "base-skeleton"), ["first"])
        context = site.context
        choice = context.jails(["first"])[0].jail
        made = 0

        def names() -> list[str]:
            nonlocal made
            made += each
            return [f"n{index}" for index in range(made - each, made)]

        def ours() -> float:
            from msgspec.structs import replace

            plans = [context.plan_jail(replace(choice, name=name)) for name in names()]
            os.sync()
            start = time.perf_counter()
            with open_root(str(site.root)) as root, root.open(".layout") as state:
                maker = Maker(root, state, Platform.LINUX, "", lambda *_: None)
                for plan in plans:
                    todo = [
                        Observation(entry, Is.MISSING)
                        for entry in plan.entries
                        if isinstance(entry, Copy) and entry.path.count("/") == 1
                    ]
                    maker.make(todo, plan.entries)
                maker.close()
            return time.perf_counter() - start

        def written() -> float:
            places = names()
            os.sync()
            start = time.perf_counter()
            with open_root(str(site.root)) as root, root.open("skel/s") as s, root.open("skel/t") as t:
                trees = {"s": load_tree(s), "t": load_tree(t)}
                for name in places:
                    for half, items in trees.items():
                        root.make_dir(f"{half}/w-{name}", 0o755)
                        with root.open(f"{half}/w-{name}") as into:
                            write_items(items, into, clone=True)
            return time.perf_counter() - start

        copier, syncer = need("cp"), need("sync")

        def plain(*, sync: bool) -> float:
            targets = [point / "copies" / name for name in names()]
            for target in targets:
                target.mkdir(parents=True)
            os.sync()
            skeleton = site.root / "skel"
            return sum(
                spawn([copier, "-a", str(skeleton / "s"), str(skeleton / "t"), str(target)])
                + (spawn([syncer, "-f", str(target)]) if sync else 0)
                for target in targets
            )

        return rounds(
            count,
            ours=ours,
            written=written,
            floor=lambda: plain(sync=False),
            synced=lambda: plain(sync=True),
        )

    kind, told = _on(bench, "ext4", "8G", work)
    what = f"s and t of a jail, 500-file skeleton, on {kind}"
    yield Row(what, "`cp -a`", told["written"], told["floor"], 0.6, per=each)
    what = "the same on the disk, as init makes it"
    yield Row(what, "`cp -a`, then `sync -f`", told["ours"], told["synced"], 0.6, per=each)


def populate(bench: Bench) -> Iterator[Row]:
    """Population with a SHA-256 manifest in the same pass, against tar -x."""
    tar = need("tar")
    for suffix, target in (("zst", 1.4), ("xz", 1.15)):
        path = bench.archive.compressed(suffix)
        where = ""

        def fresh(work: Callable[[Path], float]) -> float:
            nonlocal where
            os.sync()
            where, elapsed = _on(bench, "ext4", "1G", work)
            return elapsed

        def ours(point: Path, path: Path = path) -> float:
            from layout.host import unpack

            (point / "base").mkdir()
            archive = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            into = os.open(point / "base", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            manifest = os.open(point / "manifest", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            start = time.perf_counter()
            found = unpack.unpack(archive, str(path), into, manifest)
            elapsed = time.perf_counter() - start
            assert found.entries > bench.archive.files
            for descriptor in (archive, into, manifest):
                os.close(descriptor)
            return elapsed

        def floor(point: Path, path: Path = path) -> float:
            (point / "base").mkdir()
            return spawn([tar, "-x", "-p", "--numeric-owner", "-f", str(path), "-C", str(point / "base")])

        told = rounds(
            bench.rounds(5),
            ours=lambda ours=ours, fresh=fresh: fresh(ours),
            floor=lambda floor=floor, fresh=fresh: fresh(floor),
        )
        what = f"population from .tar.{suffix}, {bench.archive.files:,} files, with manifest, on {where}"
        yield Row(what, "`tar -x`", told["ours"], told["floor"], target)


def disk(bench: Bench) -> Iterator[Row]:
    """What one more jail takes of the file system, against du of the skeleton."""
    for kind, target in (("ext4", 1.05), ("xfs", 0.2), ("btrfs", 0.2)):
        try:
            with volume(bench.work, kind, "1G") as point:
                taken, skeleton = _one_more(bench, point)
        except Skip as reason:
            if kind == "ext4":
                raise
            print(f"| one more jail on {kind} | skipped: {reason} | | | | | |", flush=True)
            continue
        floor = "`du` of the skeleton"
        yield Row(f"one more jail, bytes, on {kind}", floor, [taken[0]], [skeleton[0]], target, unit="bytes")
        if kind == "ext4":
            yield Row("one more jail, inodes", floor, [taken[1]], [skeleton[1]], 1.05, unit="inodes")


def _one_more(bench: Bench, point: Path) -> tuple[tuple[float, float], tuple[int, int]]:
    """Return what a jail more costs, as a mean of ten: journals and block groups come in lumps."""
    site = lab.Site(point / "jails", lab.base_with_skeleton(bench.work / "base-skeleton"), ["first"])
    more = [f"m{index}" for index in range(10)]
    before = lab.usage(point)
    subprocess.run(site.layout("init", *more, "--no-mount", "-q"), check=True, stdout=subprocess.DEVNULL)
    after = lab.usage(point)
    taken = ((after[0] - before[0]) / len(more), (after[1] - before[1]) / len(more))
    return taken, lab.du(site.root / "skel/s", site.root / "skel/t")


ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    row.__name__: row
    for row in (startup, attach, mount, umount, verify, probe, walk, copy, populate, disk, thin)
}
