"""A jail for hosts that boot with systemd: a unit of systemd.service(5), or a file of systemd.nspawn(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from layout.core.errors import LayoutError
from layout.core.model import Jail, JailPlan


class RunDirectory(NamedTuple):
    """A directory below /run with the numbers of the jail's own passwd(5)."""

    path: str
    """Relative to /run."""
    mode: int
    uid: int
    gid: int


class Host(msgspec.Struct, frozen=True):
    """What of the host and the base a rendered file needs to know."""

    root: str
    """ROOT."""
    layout: tuple[str, ...]
    """The command `layout` with its global options; programs by absolute paths."""
    command: tuple[str, ...]
    """What is started in the jail: the service, as its user."""
    kept: tuple[str, ...]
    """Capabilities that it is started with, in lower case, without 'cap_'."""
    directories: tuple[RunDirectory, ...]
    capabilities: tuple[str, ...]
    """All that this kernel knows, as in capabilities(7) without 'CAP_'."""


# What systemd.exec(5) offers for a service that may be root in its own tree. Nothing here forbids what a
# network daemon does: no MemoryDenyWriteExecute, which just-in-time compilers need.
_CLOSED = """\
NoNewPrivileges=yes
LimitCORE=1
PrivateDevices=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
DevicePolicy=closed
KeyringMode=private
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@keyring
SystemCallErrorNumber=EPERM
UMask=0022
"""
_RUN = "TemporaryFileSystem=/run:mode=0755,size=16m,nosuid,nodev,noexec"
_SHM = "TemporaryFileSystem=/dev/shm:mode=1777,nosuid,nodev,noexec"
_COVERED = ("/dev/pts", "/dev/mqueue", "/dev/hugepages")
"""What PrivateDevices= leaves of the host's: an administrator's terminal is root's, as the jail may be."""
CLOSING = (
    *dict.fromkeys(line.partition("=")[0] for line in _CLOSED.splitlines()),
    *("RootDirectory", "MountAPIVFS", "TemporaryFileSystem", "NoExecPaths", "CapabilityBoundingSet"),
)
"""Settings without which a jail would have more. A systemd that does not know one goes on without it."""
ROOT_IN_UNIT = "RequiresMountsFor="
"""The setting by which a rendered unit says whose it is."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ON_THE_HOST = ("/usr/bin/nsenter", "--target=1", "--mount", "--")
"""A "+" frees a command of what the settings forbid, not of a mount namespace with their tmpfs and binds:
what it mounts there, or makes in /run, nobody else sees."""


def unit_name(name: str) -> str:
    """Return the name of a jail's unit."""
    return f"layout-{name}.service"


def quote(word: str, *, command: bool = False, apart: str = "") -> str:
    """Return a word for a unit file: quoted where it must be, with % doubled, and $ in commands.

    `apart`: what else separates words there.
    """
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    # systemd ends a line at a carriage return as well.
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    if command:
        text = text.replace("$", "$$")
    plain = text and not set(text) & set(f" '\"\\;{apart}")
    return text if plain else f'"{text}"'


def command_line(words: Iterable[str]) -> str:
    """Return a command for a unit file. Only of its arguments are variables replaced, not of its program."""
    first, *others = words
    return " ".join([quote(first), *(quote(word, command=True) for word in others)])


def _nspawn_word(word: str) -> str:
    """Return a word for a .nspawn file, which knows quotes, but no escapes, variables or specifiers.

    Raises LayoutError for one that it cannot have.
    """
    if _CONTROL.search(word):
        raise LayoutError(repr(word), "a control character", "a word that systemd.nspawn(5) can hold")
    if word and not set(word) & set(" '\"\\;#"):
        return word
    # A quote stands in quotes of the other kind.
    return "'\"'".join(f'"{part}"' for part in word.split('"'))


def bare_path(path: str) -> str:
    """Return a path for a setting that takes its line as it is: a quote is a letter there.

    Raises LayoutError for a path that no line can hold.
    """
    if _CONTROL.search(path) or path != path.strip() or path.endswith("\\") or not path.isprintable():
        found = "a control character, one of no encoding, or a blank or backslash at its end"
        raise LayoutError(path, found, "a path that a unit can hold", "choose a ROOT without them")
    return path.replace("%", "%%")


def render_unit(plan: JailPlan, host: Host) -> str:
    """Return the text of layout-NAME.service.

    RootDirectoryStartOnly lets the commands around the service be those of the host. AssertPathExists is
    there because systemd makes a source of a mount that is missing: the jail would start on an empty s.
    """
    jail, service, network = plan.jail, plan.jail.settings.service, plan.jail.settings.network
    runs = f"/run/layout/{jail.name}"
    lines = [
        f"# {unit_name(jail.name)}: generated by layout render unit; put changes into a drop-in:",
        f"# systemctl edit {unit_name(jail.name)}",
        "[Unit]",
        f"Description=Jail {jail.name}",
        "Documentation=man:layout(8)",
        "After=network-online.target",
        "Wants=network-online.target",
        f"{ROOT_IN_UNIT}{quote(host.root)}",
        f"AssertPathExists={bare_path(f'{host.root}/s/{jail.name}/etc/passwd')}",
        "",
        "[Service]",
        "Type=exec",
        # Mounted by layout, all of it or nothing, and read back.
        f"ExecStartPre=+{command_line((*_ON_THE_HOST, *host.layout, 'mount', jail.name))}",
    ]
    for one in host.directories:
        lines.append(f"ExecStartPre=+{command_line((*_ON_THE_HOST, *_made(jail.name, one)))}")
    for address in network.own_words if network.interface else ():
        lines.append(f"ExecStartPre=+-/sbin/ip address add {address} dev {network.interface}")
        lines.append(f"ExecStopPost=+-/sbin/ip address del {address} dev {network.interface}")
    lines.append(f"ExecStart={command_line(host.command)}")
    if service.reload_signal:
        lines.append(f"ExecReload=+/bin/kill -{service.reload_signal} $MAINPID")
    if host.directories:
        lines.append(f"ExecStopPost=+{command_line((*_ON_THE_HOST, '/bin/rm', '-rf', runs))}")
    lines += [
        f"KillSignal=SIG{service.stop_signal}",
        "KillMode=mixed",
        f"TimeoutStopSec={service.stop_timeout}",
        "Restart=on-failure",
        f"SyslogIdentifier=layout-{jail.name}",
        f"RootDirectory={bare_path(plan.tables.jail[0].target)}",
        "RootDirectoryStartOnly=yes",
        "MountAPIVFS=yes",
    ]
    tops = dict.fromkeys(one.path.partition("/")[0] for one in host.directories)
    # '-': for the commands before the service, which have this namespace too, they are not there yet.
    for top in tops:
        bound = ":".join(quote(path, apart=":") for path in (f"-{runs}/{top}", f"/run/{top}"))
        lines += [f"BindPaths={bound}", f"NoExecPaths={quote(f'-+/run/{top}')}"]
    lines += [f"Environment={quote(setting)}" for setting in service.environment]
    # No User=: systemd looks for it, number or name, in the host's own passwd(5), and else starts nothing.
    lines.append(f"CapabilityBoundingSet={' '.join(f'CAP_{name.upper()}' for name in host.kept)}")
    if network.is_none:
        lines.append("PrivateNetwork=yes")
    lines += [_RUN, _SHM, *(f"TemporaryFileSystem={path}:ro,nosuid,nodev,noexec" for path in _COVERED)]
    return "\n".join(lines) + f"\n{_CLOSED}\n[Install]\nWantedBy=multi-user.target\n"


def _made(name: str, one: RunDirectory) -> tuple[str, ...]:
    """Return the command that makes a directory of the jail's /run."""
    words = ("-d", "-o", str(one.uid), "-g", str(one.gid), "-m", f"{one.mode:04o}")
    return ("/usr/bin/install", *words, f"/run/layout/{name}/{one.path}")


def render_nspawn(plan: JailPlan, host: Host, *, user_namespace: bool) -> str:
    """Return the text of NAME.nspawn for /etc/systemd/nspawn. Raises LayoutError for an unfit ROOT."""
    jail, service, network = plan.jail, plan.jail.settings.service, plan.jail.settings.network
    places = [f"{plan.tables.jail[0].target}/{half}" for half in ("s", "t")]
    tops = list(dict.fromkeys(one.path.partition("/")[0] for one in host.directories))
    for path in (*places, *tops):
        if set(path) & set(' :"\\\n\t'):
            hint = "choose a ROOT without them"
            raise LayoutError(path, "a blank, colon or quote", "a path that systemd.nspawn(5) can hold", hint)
    runs, mapped = f"/run/layout/{jail.name}", ":idmap" if user_namespace else ""
    # Without CAP_KILL the stub that is process 1 could not end a service that is another user: of its own
    # namespace alone, where there is nobody else.
    kept = tuple(dict.fromkeys((*host.kept, "kill")))
    dropped = [name for name in host.capabilities if name.lower() not in kept]
    lines = [
        f"# {jail.name}.nspawn: generated by layout render nspawn, for /etc/systemd/nspawn.",
        f"# It goes with the machine directory: ln -s {host.root}/j/mroot /var/lib/machines/{jail.name}",
        f"# and with a drop-in, for its mounts and /tmp (systemctl edit systemd-nspawn@{jail.name}.service):",
        "#   [Service]",
        "#   Environment=SYSTEMD_NSPAWN_TMPFS_TMP=0",
        f"#   ExecStartPre={command_line((*host.layout, 'mount', jail.name))}",
        *(f"#   ExecStartPre={command_line(_made(jail.name, one))}" for one in host.directories),
        *([f"#   ExecStopPost={command_line(('/bin/rm', '-rf', runs))}"] if host.directories else []),
        "# Its /run and /dev are nspawn's own, and executable; `layout start` closes them, this does not.",
        "[Exec]",
        "Boot=no",
        "ProcessTwo=yes",
        f"Parameters={' '.join(_nspawn_word(word) for word in host.command)}",
        f"Hostname={network.hostname or jail.name}",
        # To the stub: it sends SIGTERM to the service, and does not heed one itself.
        "KillSignal=SIGRTMIN+3",
        f"PrivateUsers={'pick' if user_namespace else 'no'}",
        "NoNewPrivileges=yes",
        "LimitCORE=1",
        f"DropCapability={' '.join(f'CAP_{name}' for name in dropped)}",
        "ResolvConf=off",
        "Timezone=off",
        "LinkJournal=no",
        *(f"Environment={_nspawn_word(setting)}" for setting in service.environment),
    ]
    lines.append(f"Capability={' '.join(f'CAP_{name.upper()}' for name in kept)}")
    lines += ["", "[Files]", "ReadOnly=yes"]
    lines += ["PrivateUsersOwnership=map"] if user_namespace else []
    lines += [f"BindReadOnly={places[0]}:/s{mapped}", f"Bind={places[1]}:/t{mapped}"]
    # nspawn's own are executable; without its own /run it does not start.
    lines.append(_SHM)
    lines += [f"Bind={runs}/{top}:/run/{top}{mapped}" for top in tops]
    lines += ["", "[Network]", f"Private={'yes' if network.is_none else 'no'}", "VirtualEthernet=no"]
    return "\n".join(lines) + "\n"


def render_start_unit(jail: Jail, root: str, layout: Sequence[str]) -> str:
    """Return a unit of systemd.service(5) that starts a jail at boot as `layout start` does, and stops it.

    For a kind that systemd cannot keep by itself: layout makes its root, link and rules, and stays until it
    is ready; what it starts stays in the unit.
    """
    start, stop = (command_line((*layout, verb, jail.name)) for verb in ("start", "stop"))
    seconds = jail.settings.service.ready.timeout + jail.settings.service.stop_timeout + 30
    return f"""\
# {unit_name(jail.name)}: a jail of kind {jail.kind}, generated by layout
[Unit]
Description=Jail {jail.name}
After=network-online.target local-fs.target
Wants=network-online.target
{ROOT_IN_UNIT}{quote(root)}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={start}
ExecStop={stop}
TimeoutSec={seconds}

[Install]
WantedBy=multi-user.target
"""
