"""A client in a network of its own, on a wire to this host: what the outside sees of a jail."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HOST, CLIENT = "192.0.2.1", "192.0.2.2"
OUTSIDE = "out0"
"""The host's interface to it."""

_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as s:
        s.sendall(sys.argv[4].encode())
        s.shutdown(socket.SHUT_WR)
        text = b""
        while piece := s.recv(4096):
            text += piece
except OSError as error:
    print(type(error).__name__, error)
    sys.exit(1)
sys.stdout.buffer.write(text)
"""
_HEAR = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))) as s:
    print("listening", flush=True)
    client, address = s.accept()
    client.sendall(address[0].encode())
    client.close()
    print(address[0], flush=True)
"""


def missing(*more: str) -> str:
    """Return which program of the tests is not here; nothing when all are."""
    return " ".join(name for name in ("ip", "nft", "nsenter", *more) if shutil.which(name) is None)


class Outside:
    """The client."""

    def __init__(self, pid: int) -> None:
        self.words = ("nsenter", f"--net=/proc/{pid}/ns/net", "--")

    def ip(self, *words: str) -> None:
        subprocess.run([*self.words, "ip", *words], check=True)

    def ask(self, port: int, address: str = HOST, say: str = "", seconds: float = 5) -> str:
        """Return what answers there, or the error."""
        words = (*self.words, sys.executable, "-c", _ASK, address, str(port), str(seconds), say)
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    @contextlib.contextmanager
    def listening(self, port: int) -> Iterator[subprocess.Popen[str]]:
        """Take one connection; tell whose it is, there and on standard output."""
        words = (*self.words, sys.executable, "-c", _HEAR, str(port))
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            try:
                yield process
            finally:
                process.kill()


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Make the client and its wire; the host passes packets on meanwhile."""
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text()
    with subprocess.Popen(["unshare", "-n", "sleep", "600"]) as process:
        try:
            import time

            own = Path("/proc/self/ns/net").readlink()
            while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
                time.sleep(0.01)
            subprocess.run(
                f"ip link add {OUTSIDE} type veth peer name eth0 netns {process.pid}\n"
                f"ip address add {HOST}/24 dev {OUTSIDE}; ip link set lo up; ip link set {OUTSIDE} up",
                shell=True,
                check=True,
            )
            client = Outside(process.pid)
            client.ip("address", "add", f"{CLIENT}/24", "dev", "eth0")
            client.ip("link", "set", "eth0", "up")
            client.ip("route", "add", "default", "via", HOST)
            forward.write_text("1")
            yield client
        finally:
            forward.write_text(before)
            process.kill()


def links() -> set[str]:
    """Return the host's interfaces."""
    text = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    return {one["ifname"] for one in json.loads(text) if one}


def tables() -> set[str]:
    """Return the host's tables of nft(8)."""
    text = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {one["table"]["name"] for one in json.loads(text)["nftables"] if "table" in one}
