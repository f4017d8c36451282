"""The attempts that are the same on both platforms: A1, A2, A3, A5, A7, A8, and of A6 the ways out."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable

from layout.core.probing import Attempt, Place
from layout.host.inside import executing, steps
from layout.host.inside.executing import name_of
from layout.host.inside.task import SECONDS, Powers, Task

_DEPTH = 2
_WRITABLE = 64
"""Directories of a place that may be written to: a jail can make any number of them."""
_NAMES = 4096
"""Entries of one directory of such a place that are looked at."""
_SAMPLES = 3
"""Files of each read-only place that A3 tries to change."""
# Major 60 is nobody's (admin-guide/devices): opening it starts nothing.
_DEVICES = (
    ("mknod of a character device", stat.S_IFCHR, os.makedev(1, 3)),
    ("mknod of a block device", stat.S_IFBLK, os.makedev(60, 0)),
)
_UPWARDS = 64


def attempts(task: Task, powers: Powers) -> list[Attempt]:
    """Try everything; the root has been changed, and all rights that the jail lacks are gone."""
    return _Prober(task, powers).run()


class _Late(Exception):
    """No time is left."""


class _Prober:
    """One run in one jail."""

    def __init__(self, task: Task, powers: Powers) -> None:
        self.task = task
        self.powers = powers
        self.done: list[Attempt] = []
        self.end = time.monotonic() + SECONDS
        self.places = {place.path: place for place in task.places}
        self.files: list[tuple[str, str, int]] = []
        """Path and place of where a program was written, and its descriptor."""
        self.setuid: list[tuple[str, str, int]] = []
        self.samples: list[tuple[str, Place]] = []
        self.special: list[tuple[str, str]] = list(task.special)
        self.counts: dict[str, int] = {}
        self.roots: dict[tuple[int, int], Place] = {}

    def run(self) -> list[Attempt]:
        """Return every attempt."""
        self._outside()
        try:
            for place in self.task.places:
                self._place(place)
            self._execute()
            self.powers.no_new_privileges()
            self._change()
            self._controls()
            for path, place_path in dict.fromkeys(self.special):
                self._use(path, place_path)
            self.done += self.powers.privileged(self.task.places)
        except _Late:
            self._note("A0", "all of it", "/", "/", f"no time left after {SECONDS:.0f} s")
        finally:
            for _, _, fd in (*self.files, *self.setuid):
                os.close(fd)
        return self.done

    def _note(self, probe: str, action: str, path: str, place: str, outcome: str = "") -> None:
        self.done.append(Attempt(probe, action, path, place, outcome))

    def _try(
        self, probe: str, action: str, path: str, place: str, work: Callable[..., object], *words: object
    ) -> bool:
        """Note what comes of a call; say whether it was done."""
        try:
            work(*words)
        except OSError as error:
            self._note(probe, action, path, place, name_of(error))
            return False
        self._note(probe, action, path, place)
        return True

    # -- A6 -----------------------------------------------------------------------------------------

    def _outside(self) -> None:
        """Look for ways out: nothing has been opened yet but the pipe."""
        here = os.stat("/")
        for path in ("/..", "/../../../..", "."):
            there = os.stat(path)
            same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            self._note("A6", "outside", path, "/", "" if same else "another directory than /")
        found = os.getcwd()
        self._note("A6", "outside", "getcwd", "/", "" if found == "/" else found)
        held = [fd for fd in range(256) if steps.is_directory(fd)]
        self._note("A6", "descriptor", "descriptors", "/", f"directory {held[0]}" if held else "")

    # -- A1, A2, A5, and of A4 device nodes -----------------------------------------------------------

    def _place(self, place: Place) -> None:
        try:
            fd = os.open(place.path, steps.DIRECTORY)
        except NotADirectoryError:  # a single file was mounted
            if place.sealed:
                self.samples.append((place.path, place))
            return
        except OSError as error:
            if not place.system:
                self._note("A0", "every mount", place.path, place.path, name_of(error))
            return
        try:
            found = os.fstat(fd)
            self.roots[found.st_dev, found.st_ino] = place
            self._directory(fd, place.path, place, 0)
        finally:
            os.close(fd)

    def _directory(self, fd: int, path: str, place: Place, depth: int) -> None:
        """Try to create something in a directory, then in those below it."""
        if time.monotonic() > self.end:
            raise _Late
        if place.writable:
            self.counts[place.path] = self.counts.get(place.path, 0) + 1
            if self.counts[place.path] > _WRITABLE:
                return
        self._create(fd, path, place)
        if depth == _DEPTH or place.system:
            return
        try:
            self._entries(fd, path, place, depth)
        except OSError as error:
            if not place.writable:
                self._note("A8", "look", path, place.path, name_of(error))

    def _entries(self, fd: int, path: str, place: Place, depth: int) -> None:
        wanted = _SAMPLES
        with os.scandir(fd) as entries:
            for number, entry in enumerate(entries):
                if place.writable and number >= _NAMES:
                    break
                below = f"{path.rstrip('/')}/{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    if below not in self.places:
                        self._below(fd, entry.name, below, place, depth, os.O_NOFOLLOW)
                elif place.writable:
                    if steps.OURS.fullmatch(entry.name):
                        steps.remove_stale(fd, entry.name)
                elif entry.is_symlink():
                    self._below(fd, entry.name, below, place, _DEPTH, 0)
                elif entry.is_file(follow_symlinks=False):
                    if wanted and place.sealed:
                        self.samples.append((below, place))
                        wanted -= 1
                elif place.shared:
                    self.special.append((below, place.path))
        if place.shared:
            self._note("A8", "look", path, place.path)

    def _below(self, fd: int, name: str, path: str, place: Place, depth: int, flags: int) -> None:
        try:
            below = os.open(name, steps.DIRECTORY | flags, dir_fd=fd)
        except OSError as error:
            if flags and not place.writable:
                self._note("A0", "every directory", path, place.path, name_of(error))
            return  # a link that leads to no directory; or a jail that has just removed one
        try:
            if flags:
                self._directory(below, path, place, depth + 1)
            else:
                self._create(below, path, self._place_of(below) or place)
        finally:
            os.close(below)

    def _place_of(self, fd: int) -> Place | None:
        """Return the place that a directory lies in, by going up from it."""
        here = os.dup(fd)
        try:
            for _ in range(_UPWARDS):
                found = os.fstat(here)
                place = self.roots.get((found.st_dev, found.st_ino)) or self._root(found)
                if place is not None:
                    return place
                above = os.open("..", steps.DIRECTORY, dir_fd=here)
                os.close(here)
                here = above
        except OSError:
            return None
        finally:
            os.close(here)
        return None

    def _root(self, found: os.stat_result) -> Place | None:
        """Return the place whose root this is: places of which the turn has not come are looked up."""
        for place in self.task.places:
            with contextlib.suppress(OSError):
                there = os.stat(place.path)
                self.roots.setdefault((there.st_dev, there.st_ino), place)
        return self.roots.get((found.st_dev, found.st_ino))

    def _create(self, fd: int, path: str, place: Place) -> None:
        """Make a file in a directory; where that works, try to execute it, and to make devices."""
        with steps.untouched(fd):
            name = steps.new_name()
            try:
                file = os.open(name, steps.NEW, 0o600, dir_fd=fd)
            except OSError as error:
                self._note("A1", "create", path, place.path, name_of(error))
                if not place.system:
                    self._devices(fd, path, place)
                return
            self._note("A1", "create", path, place.path)
            try:
                program = self._written(file, fd, name, 0o755)
            finally:
                steps.remove(fd, name)
            self._devices(fd, path, place)
            if program is not None:
                self.files.append((path, place.path, program))
                self._map(program, path, place)
            if all(where != place.path for _, where, _ in self.setuid):
                self._setuid(fd, path, place)

    def _written(self, file: int, fd: int, name: str, mode: int, owner: int = -1) -> int | None:
        """Write the program and open it anew, for reading: one that is open for writing is 'text busy'."""
        try:
            with contextlib.suppress(OSError):  # a full disk: an empty file is refused as well
                os.write(file, self.task.program)
            if owner >= 0:
                os.fchown(file, owner, -1)
            os.fchmod(file, mode)
            again = os.open(name, steps.READ, dir_fd=fd)
            if not os.path.sameopenfile(file, again):
                os.close(again)
                return None
            return again
        except OSError:
            return None
        finally:
            os.close(file)

    def _map(self, file: int, path: str, place: Place) -> None:
        if os.fstat(file).st_size:  # a full disk: execve(2) is left to tell
            self._try("A2", "mmap", path, place.path, steps.map_code, file)

    def _setuid(self, fd: int, path: str, place: Place) -> None:
        name = steps.new_name()
        try:
            file = os.open(name, steps.NEW, 0o600, dir_fd=fd)
        except OSError:
            return
        try:
            program = self._written(file, fd, name, 0o4755, executing.OWNER)
        finally:
            steps.remove(fd, name)
        if program is not None:
            self.setuid.append((path, place.path, program))

    def _devices(self, fd: int, path: str, place: Place) -> None:
        for action, kind, number in _DEVICES:
            name = steps.new_name()
            if self._try("A4", action, path, place.path, steps.make_node, fd, name, kind, number):
                self._try("A4", "open of a device node", path, place.path, steps.open_node, fd, name)
                steps.remove(fd, name)

    def _execute(self) -> None:
        """Execute what was written, everywhere, as another user."""
        files = [("A5", "setuid", *one) for one in self.setuid] + [
            ("A2", "execve", *one) for one in self.files
        ]
        if not files:
            return
        how = self.powers.powerless, self.powers.no_new_privileges
        outcomes = executing.execute_all([fd for *_, fd in files], len(self.setuid), how)
        for (probe, action, path, place, _), outcome in zip(files, outcomes, strict=False):
            if outcome == "unprepared":
                self._note("A0", f"{action} as another user", path, place, "no other user to become")
            else:
                self._note(probe, action, path, place, outcome)

    # -- A3 -------------------------------------------------------------------------------------------

    def _change(self) -> None:
        """Try to change what is read-only, in ways that leave it as it is when they work."""
        into = self._where_to_link()
        for place in self.task.places:
            if place.sealed:
                self._metadata(place.path, place)
        for path, place in self.samples:
            if time.monotonic() > self.end:
                raise _Late
            self._metadata(path, place)
            self._try("A3", "append", path, place.path, steps.append_nothing, path)
            if self.done[-1].outcome == "ETXTBSY":
                self.done.pop()  # it is being executed: the kernel does not come to look at the mount
            self._rename(path, place)
            for other in into:
                self._link(path, place, other)

    def _where_to_link(self) -> list[str]:
        return list({place: path for path, place, _ in reversed(self.files)}.values())

    def _metadata(self, path: str, place: Place) -> None:
        try:
            found = os.lstat(path)
        except OSError as error:
            self._note("A0", "every file", path, place.path, name_of(error))
            return
        mode = stat.S_IMODE(found.st_mode)
        self._try("A3", "chmod", path, place.path, os.chmod, path, mode)
        if not mode & 0o6000:  # chown(2) takes these bits away
            self._try("A3", "chown", path, place.path, os.lchown, path, found.st_uid, found.st_gid)
        self._try("A3", "utime", path, place.path, steps.set_times, path, found)

    def _rename(self, path: str, place: Place) -> None:
        head, _, old = path.rpartition("/")
        with steps.opened(head or "/") as fd:
            new = steps.new_name()
            if fd >= 0 and self._try("A3", "rename", path, place.path, steps.rename_in, fd, old, new):
                steps.rename_in(fd, new, old)

    def _link(self, path: str, place: Place, other: str) -> None:
        with steps.opened(other) as fd:
            name = steps.new_name()
            if fd >= 0 and self._try("A3", "link", path, place.path, steps.link_into, path, fd, name):
                steps.remove(fd, name)

    # -- A7, A8 ---------------------------------------------------------------------------------------

    def _controls(self) -> None:
        for path in self.task.writable:
            self._try("A7", "create", path, "/", steps.make_and_remove, path)
        for path in self.task.readable:
            self._try("A7", "read", path, "/", steps.look_into, path)
        path, found = self._program()
        if path:
            self._try("A7", "map a program", path, "/", steps.map_code, found)
            os.close(found)

    def _program(self) -> tuple[str, int]:
        """Return a file that the jail would execute, with its descriptor."""
        candidates = (*self.task.programs, *(path for path, _ in self.samples))
        for candidate in candidates:
            for path in steps.executables(candidate):
                with contextlib.suppress(OSError):
                    fd = os.open(path, steps.READ & ~os.O_NOFOLLOW)
                    found = os.fstat(fd)
                    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o111 and found.st_size:
                        return path, fd
                    os.close(fd)
        return "", -1

    def _use(self, path: str, place: str) -> None:
        """Use a FIFO or a socket of a tree that is read-only. A device is found by A4, and from outside."""
        try:
            kind = stat.S_IFMT(os.lstat(path).st_mode)
        except OSError as error:
            self._note("A8", "look", path, place, name_of(error))
            return
        if kind == stat.S_IFIFO:
            self._try("A8", "FIFO", path, place, steps.open_fifo, path)
        elif kind == stat.S_IFSOCK:
            self._try("A8", "socket", path, place, steps.connect, path)
