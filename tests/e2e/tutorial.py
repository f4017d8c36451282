"""docs/tutorial.md as a program: its commands, what it says that they print, and what they print.

In the box, `python -m tests.e2e.tutorial` prints the page anew, with the output of this run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorial.md"
_BLOCK = re.compile(r"```console\n(.*?)```\n", re.DOTALL)
_END = "@@tutorial@@"


def commands(page: str) -> list[tuple[str, str]]:
    """Return each command of the page with the output that follows it."""
    found = []
    for block in _BLOCK.findall(page):
        for part in re.split(r"^# ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def play(words: list[str], archive: str) -> list[str]:
    """Run the commands in one shell, with a /srv of its own, and return what each printed.

    The base is `archive`: there is no network here, and it was built with the same command.
    """
    lines = [
        "mount --make-rshared / && mount -t tmpfs -o mode=755 srv /srv || exit",
        "cp $BASE /srv/debian.tar.zst; cp $BASE.toml /srv/debian.tar.zst.toml",
        "exec 2>&1 </dev/null",
    ]
    for command in words:
        lines += [command, f"echo {_END}"]
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "slave", "bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env={"PATH": path, "LC_ALL": "C.UTF-8", "BASE": archive, "NO_COLOR": "1", "COLUMNS": "120"},
        cwd="/",
    )
    return done.stdout.split(f"{_END}\n")[: len(words)]


def filled(page: str, outputs: list[str]) -> str:
    """Return the page with these outputs in the places of its own."""
    rest = iter(outputs)

    def block(match: re.Match[str]) -> str:
        parts = re.split(r"^# ", match[1], flags=re.MULTILINE)[1:]
        lines = [f"# {part.partition(chr(10))[0]}\n{next(rest)}" for part in parts]
        return f"```console\n{''.join(lines)}```\n"

    return _BLOCK.sub(block, page)


def main() -> None:
    page = PAGE.read_text()
    words = [command for command, _ in commands(page)]
    sys.stdout.write(filled(page, play(words, os.environ["LAYOUT_DEBIAN_BASE"])))


if __name__ == "__main__":
    main()
