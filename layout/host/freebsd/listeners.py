"""Who listens on a port of the host, as sockstat(1) tells."""

from __future__ import annotations

from layout.host.run import run


def on_every_address(command: str, port: int) -> bool:
    """Say whether a program of this name listens on a TCP port of every address. Raises LayoutError."""
    lines = run("sockstat", "-46lq", "-P", "tcp", "-p", str(port)).stdout.splitlines()
    # USER COMMAND PID FD PROTO LOCAL FOREIGN
    return any(fields[1:2] == [command] and f"*:{port}" in fields[5:6] for fields in map(str.split, lines))
