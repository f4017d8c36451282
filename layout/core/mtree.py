"""Lines of mtree(5), as mtree(8) of NetBSD and FreeBSD reads them."""

from __future__ import annotations

import re
from typing import Literal

# vis(3) in octal: what would end a word, start a comment or be taken for a wildcard.
_SPECIAL = re.compile(rb"[^!-~]|[#\\*?\[]")


def encode(path: str) -> str:
    """Return a path or link target as mtree(8) writes it."""
    raw = path.encode("utf-8", "surrogateescape")
    return _SPECIAL.sub(lambda match: b"\\%03o" % match[0][0], raw).decode("ascii")


def line(
    path: str,
    kind: Literal["file", "dir", "link"],
    mode: int = 0o777,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    digest: str = "",
    target: str = "",
) -> str:
    """Return the line of one entry. `path` is relative; `digest` is the SHA-256 of a file in hexadecimal."""
    name = f"./{encode(path)}"
    match kind:
        case "dir":
            return f"{name} type=dir mode={mode:04o} uid={uid} gid={gid}"
        case "link":
            return f"{name} type=link link={encode(target)}"
        case "file":
            content = f" sha256digest={digest}" if digest else ""
            return f"{name} type=file mode={mode:04o} uid={uid} gid={gid} size={size}{content}"
