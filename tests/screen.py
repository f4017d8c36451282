"""A terminal whose other end a test holds, as an administrator sits before it."""

from __future__ import annotations

import os
import re
import select
import time


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

    def expect(self, pattern: str, seconds: float = 8.0) -> re.Match[str]:
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
