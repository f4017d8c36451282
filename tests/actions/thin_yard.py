"""A small dynamic daemon with a library of its own, and a thin jail for it."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yard import Yard

if TYPE_CHECKING:
    from pathlib import Path

SERVER = r"""
#include <arpa/inet.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int answer(void);
static void stop(int s) { (void)s; _exit(0); }
static int can_write(const char *p) {
  FILE *f = fopen(p, "w"); if (!f) return 0; fputs("#!/bin/sh\n", f); fclose(f); return 1; }
int main(int c, char **v) {
  struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(v[1])) };
  signal(SIGTERM, stop); inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
  if (c > 2) { fprintf(stderr, "told to fail\n"); return 3; }
  int s = socket(AF_INET, SOCK_STREAM, 0), one = 1; setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 5)) { perror("bind"); return 1; }
  for (;;) {
    int k = accept(s, 0, 0); if (k < 0) continue;
    struct passwd *p = getpwuid(getuid());
    char config[64] = ""; FILE *f = fopen("/etc/app/app.conf", "r");
    if (f) { fgets(config, 64, f); fclose(f); }
    dprintf(k, "answer=%d user=%s root=%s etc=%d lib=%d log=%d conf=%d sh=%d config=%s\n", answer(),
            p ? p->pw_name : "?", getpwuid(0) ? "known" : "unknown", can_write("/etc/x"), can_write("/lib/x"),
            can_write("/var/log/app/x"), can_write("/etc/app/x"), access("/bin/sh", F_OK) == 0, config);
    close(k);
  }
}
"""


def compile_(*words: str | Path, text: str) -> None:
    subprocess.run(["gcc", "-x", "c", "-", "-x", "none", *words], input=text, text=True, check=True)


@dataclass
class Daemon:
    """The program with what belongs to it, on the host."""

    top: Path
    port: int = 8091

    @property
    def program(self) -> Path:
        return self.top / "bin/appd"

    def build(self) -> None:
        for name in ("bin", "lib", "etc", "log"):
            (self.top / name).mkdir(parents=True, exist_ok=True)
        self.library(42)
        libraries = ("-L", self.top / "lib", "-lanswer", f"-Wl,-rpath,{self.top}/lib")
        compile_("-w", "-o", self.program, *libraries, text=SERVER)
        (self.top / "etc/app.conf").write_text("of the host\n", encoding="utf-8")
        (self.top / "log").chmod(0o777)

    def library(self, number: int) -> None:
        """Replace the library as a package manager does: another file under the same name."""
        new = self.top / "lib/.new"
        compile_("-shared", "-fPIC", "-o", new, text=f"int answer(void) {{ return {number}; }}")
        new.rename(self.top / "lib/libanswer.so")

    def profile(self, more: str = "", words: str = "") -> str:
        return f"""
kind = "thin"
description = "a test"
{"".join(self.settings(platform, more, words) for platform in ("linux", "freebsd"))}
"""

    def settings(self, platform: str, more: str, words: str) -> str:
        return f"""
[{platform}.service]
command = ["{self.program}", "{self.port}"{words}]
ready = {{ tcp = "127.0.0.1:{self.port}", timeout = 30 }}
stop_timeout = 30
{more}
[[{platform}.mounts]]
source = "{self.top}/etc"
target = "etc/app"
[[{platform}.mounts]]
source = "{self.top}/log"
target = "var/log/app"
writable = true
"""

    def ask(self) -> dict[str, str]:
        """Return what the daemon says of itself."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as client:
            text = b""
            while piece := client.recv(4096):
                text += piece
        return dict(word.split("=", 1) for word in text.decode().strip().split(" ", 8))


def thin_yard(top: Path, daemon: Daemon, profile: str | None = None) -> Yard:
    """Make ROOT with the jail a, which is thin."""
    daemon.build()
    profiles = top / "jails/etc/profiles"
    profiles.mkdir(parents=True)
    (profiles / "a.toml").write_text(profile or daemon.profile(), encoding="utf-8")
    return Yard(top, names=("a",))
