"""A terminal whose other end a test holds, as an administrator sits before it."""

from __future__ import annotations

import os
import re
import select
import time
from pathlib import Path


class Screen:
    """What a program on a pseudoterminal writes and is told; subclasses set `pid` and `master`."""

    pid: int
    master: int
    text = ""
    """What it has written since the last match."""
    errors = "strict"
    """What to do with bytes that are no UTF-8, as for bytes.decode."""

    def send(self, text: str) -> None:
        """Type this."""
        os.write(self.master, text.encode())

    def until_it_runs(self, *words: str, seconds: float = 60.0) -> None:
        """Wait until these words, which nothing else runs with, are in the foreground of a terminal."""
        end = time.monotonic() + seconds
        while not any(_in_front(path, words) for path in Path("/proc").glob("[0-9]*")):
            assert time.monotonic() < end, words
            time.sleep(0.02)

    def expect(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait for output that matches, and forget everything up to its end."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    data = b""
                assert data, f"ended without {pattern!r}: {self.text!r}"
                self.text += data.decode("utf-8", self.errors)
        self.text = self.text[found.end() :]
        return found


def _in_front(process: Path, words: tuple[str, ...]) -> bool:
    """Say whether a process is this program, and its group the one that keys of a terminal signal."""
    try:
        command = (process / "cmdline").read_bytes().split(b"\0")[:-1]
        fields = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return command == [word.encode() for word in words] and fields[2] == fields[5]
