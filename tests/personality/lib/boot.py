"""reboot: everything that does not survive one is gone, then rc(8) in its real order (facts 1.7, 2.7).

reboot            as after a power cut
reboot --clean    the jails are stopped by rc.d first
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import kernel
import prison
import rc_order
import service_cmd
import state as kept

STOPPED = 75  # what err() in our mountcritlocal and mountlate exits with: stop_boot


def down() -> int:
    """No jail, no mount, no runtime state; 1 if something would not let go."""
    with kept.locked() as state:
        for jail in prison.jails(state):
            prison.kill(jail)
        prison.jails(state)
        baseline = set(state["baseline"])
        for _ in range(100):
            left = [line for line in kernel.mountinfo() if str(line.id) not in baseline]
            if not left:
                break
            before = len(left)
            for line in reversed(left):
                try:
                    kernel.unmount(line.on)
                except OSError:
                    continue
            if len([line for line in kernel.mountinfo() if str(line.id) not in baseline]) == before:
                time.sleep(0.05)
        else:
            print(f"reboot: {', '.join(line.on for line in left)}: still in use", file=sys.stderr)
            return 1
        state |= {
            "mounts": [],
            "jails": {},
            "next_jid": 1,
            "rulesets": {},
            "devfs_loaded": False,
            "sysctl": {},
            "prefixes": {},
            "pf": {"state": "absent", "anchors": {}},
        }
        state["interfaces"] = {"lo0": ["127.0.0.1", "::1"], "lo1": [], "em0": ["192.0.2.10"]}
    for name in os.listdir("/var/run"):
        path = os.path.join("/var/run", name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return 0


def scripts(directories: list[str]) -> list[str]:
    found = []
    for directory in directories:
        if os.path.isdir(directory):
            paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
            found += [path for path in paths if service_cmd.is_script(path)]
    return found


READ = 'rc_service=$1 autoboot=$3; trap "exit 1" 2; trap "exit 1" 3; set -- "$2"; . "$rc_service"'
"""run_rc_script of rc.subr(8): the script is read, not run, so that $0 is rc's own."""


def run(path: str, action: str) -> int:
    sys.stdout.flush()
    boot = action == "faststart"
    words = ["/bin/sh", "-c", READ, "/etc/rc" if boot else "/etc/rc.shutdown", path, action]
    return subprocess.run(
        [*words, "yes" if boot else ""], env=service_cmd.environment(), cwd="/", stdin=subprocess.DEVNULL
    ).returncode


def up() -> int:
    everything = scripts(["/etc/rc.d", *service_cmd.local_directories()])
    for script in rc_order.order(everything):
        keywords = script.words["KEYWORD"]
        if "nostart" in keywords or "firstboot" in keywords:
            continue
        print(f"rc: {script.path}", flush=True)
        status = run(script.path, "faststart")
        if status == STOPPED and script.path.startswith("/etc/rc.d/"):
            print("rc: ERROR: ABORTING BOOT (sending SIGTERM to parent)!", file=sys.stderr)
            return 1
    print("rc: done", flush=True)
    return 0


def main(argv: list[str]) -> int:
    kept.guard()
    if argv not in ([], ["--clean"]):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    os.chdir("/")
    if argv:
        everything = scripts(["/etc/rc.d", *service_cmd.local_directories()])
        for script in reversed(rc_order.order(everything, say=False)):
            if "shutdown" in script.words["KEYWORD"]:
                print(f"rc.shutdown: {script.path}", flush=True)
                run(script.path, "faststop")
    print("reboot: down", flush=True)
    return down() or up()
