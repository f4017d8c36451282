"""A caller of session.run in a process of its own, told what to do by one JSON argument (see `Driver`)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))

from layout.core.errors import LayoutError
from layout.host.linux import devices, enter, session, syscalls

SHOWN = ("bin", "etc", "lib", "lib64", "sbin", "usr")


def attach(mountpoint: str) -> None:
    """Show the host's own programs, read as they are, below a fresh root with a /dev of its own."""
    root = mountpoint.encode()
    syscalls.mount(b"tmpfs", root, b"tmpfs", 0, b"mode=755")
    for name in SHOWN:
        path = f"/{name}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), mountpoint + path)
        elif os.path.isdir(path):
            show(mountpoint, path)
    prefix = os.path.realpath(sys.base_prefix)
    if not prefix.startswith("/usr/"):
        show(mountpoint, prefix)
    for name in ("dev", "proc", "root", "tmp"):
        os.makedirs(f"{mountpoint}/{name}", exist_ok=True)
    syscalls.mount(b"tmpfs", root + b"/dev", b"tmpfs", 0, b"mode=755")
    dev = os.open(f"{mountpoint}/dev", os.O_RDONLY | os.O_DIRECTORY)
    devices.fill(dev)
    os.close(dev)
    syscalls.mount(b"devpts", root + b"/dev/pts", b"devpts", 0, b"newinstance,ptmxmode=0666,mode=620")


def show(mountpoint: str, path: str) -> None:
    os.makedirs(mountpoint + path)
    flags = syscalls.MS_BIND | syscalls.MS_REC
    syscalls.mount(path.encode(), (mountpoint + path).encode(), None, flags)


def pending() -> bytes:
    """Return what waits to be read from our terminal."""
    attributes = termios.tcgetattr(0)
    attributes[3] &= ~termios.ICANON
    attributes[6][termios.VMIN] = 0
    attributes[6][termios.VTIME] = 3
    termios.tcsetattr(0, termios.TCSANOW, attributes)
    return os.read(0, 100)


def main() -> int:
    told = json.loads(sys.argv[1])
    mountpoint = told["mountpoint"]
    if path := told.get("lock"):
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    if path := told.get("leak"):
        os.dup2(os.open(path, os.O_RDONLY | os.O_DIRECTORY), 9)  # inheritable
    if told.get("directory"):
        os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), 0)  # Python itself does not start with one

    def prepare() -> None:
        match told.get("fail"):
            case "layout":
                raise LayoutError("/some/path", "this", "that", "do it")
            case "os":
                os.mkdir("/nonexistent/directory")
            case "bug":
                raise ValueError("a mistake")
            case "nothing":
                return
        attach(mountpoint)

    status = 0
    timed = contextlib.ExitStack()
    if "late" in told:
        enter._AT_LEAST = enter._AGAIN = told["late"] / 2
        timed.enter_context(enter.in_silence(0))
        time.sleep(told["late"])
    for command in told["commands"]:
        try:
            status = session.run(
                session.Session(
                    name=told.get("name", "bind"),
                    mountpoint=mountpoint,
                    attach=prepare,
                    command=tuple(command),
                    terminal=told.get("terminal"),
                    environment=told.get("environment", {}),
                )
            )
        except LayoutError as error:
            print(f"layout: {error}\nhint: {error.hint}", file=sys.stderr)
            status = error.exit_code
        if told.get("verbose"):
            print(f"status={status}", flush=True)
    timed.close()
    if told.get("inject"):
        for byte in b"touch /tmp/PWNED\n":
            fcntl.ioctl(0, termios.TIOCSTI, bytes([byte]))
    if told.get("pending"):
        print(f"pending={pending()!r}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
