"""Which design suits a program, and a profile to start from: judged from facts that were read, not tried."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from layout.core.errors import some
from layout.core.model import Kind, Platform

MOST_FILES, MOST_BYTES = 150, 300 << 20
"""A closure beyond one of these is no small one."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXEC = _words(
    "execl execle execlp execv execve execvp execvpe fexecve popen posix_spawn posix_spawnp system"
)
_LOGIN = _words("pam_start pam_open_session login_tty forkpty getusershell setusershell")
_HOST = _words(
    "kvm_open kvm_openfiles kldload nmount mount umount2 init_module finit_module pivot_root swapon reboot"
)
_BECOMES = _words("setuid setreuid setresuid seteuid initgroups setgroups setusercontext")
_SERVES = _words("listen accept accept4 bind recvfrom sd_listen_fds")
LOADS = "dlopen"


_TUNNELS = ("/dev/net/tun", "/dev/tun", "/dev/tap")
_NAMED = 4


class Facts(msgspec.Struct, frozen=True):
    """What the file of a program, its package and the host say; nothing was executed for it."""

    path: str
    platform: Platform
    form: str
    """'static', 'dynamic' or 'script'."""
    interpreter: str = ""
    setuid: bool = False
    names: frozenset[str] = frozenset()
    """Functions that it and its own libraries import or define."""
    files: int = 0
    size: int = 0
    """Of its closure, in bytes."""
    lacking: str = ""
    """Why the closure cannot be had."""
    package: str = ""
    runs: tuple[str, ...] = ()
    """Other programs of the host that it names."""
    devices: tuple[str, ...] = ()
    """Devices that it names and a jail does not have."""
    config: tuple[str, ...] = ()
    """Directories of its configuration."""
    config_files: tuple[str, ...] = ()
    """Files of it, and of data, that lie beside those of others."""
    config_writable: tuple[str, ...] = ()
    """Those that its user may write to."""
    state: tuple[str, ...] = ()
    """Directories below /var that it writes to."""
    run: tuple[str, ...] = ()
    """Directories below /run, relative to that."""
    modules: tuple[str, ...] = ()
    """Patterns of the libraries that its package has for it to load."""
    command: tuple[str, ...] = ()
    """How the host starts it, or how it stays in the foreground."""
    user: str = ""
    """Who it runs as."""
    ports: tuple[str, ...] = ()
    unit: str = ""
    """The host's unit or rc script for it."""
    socket: str = ""
    """The host's unit that gives it the sockets that it listens on."""


class Reason(msgspec.Struct, frozen=True):
    """What speaks for or against one design."""

    kind: Kind
    suits: bool
    why: str


class Advice(msgspec.Struct, frozen=True):
    """The design that is proposed, why, and its profile as data of TOML."""

    kind: Kind
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...]
    """What to look at before the profile is used."""
    profile: dict[str, Any]


def advise(facts: Facts) -> Advice:
    """Propose a design. Pure: the same facts give the same advice."""
    reasons = _reasons(facts)
    # The most closed one that suits; a service of the host only for what can be nothing else.
    suits = {reason.kind for reason in reasons if reason.suits}
    order = (Kind.SERVICE, Kind.FULL, Kind.OSLESS, Kind.THIN, Kind.SHARED)
    kind = next(kind for kind in order if kind in suits)
    profile = {"kind": str(kind), "description": f"{_name(facts)}, as layout advise proposes"}
    own = {str(facts.platform): _settings(facts, kind)}
    return Advice(kind, reasons, _notes(facts, kind), {**profile, **own})


def _name(facts: Facts) -> str:
    return os.path.basename(facts.path)


def _reasons(facts: Facts) -> tuple[Reason, ...]:
    login = sorted(_LOGIN & facts.names)
    host = _needs_of_host(facts, logs_in=bool(login))
    against = _against_thin(facts)
    is_dynamic = facts.form == "dynamic"
    small = f"its closure is small: {_closure(facts)}" if is_dynamic else "it would do, but it needs nothing"
    service = f"{host}: that is the host's" if host else "it asks for nothing of that kind"
    full = _full(login, but="; but it asks for what is the host's" if host else "")
    return (
        Reason(Kind.SERVICE, bool(host), service),
        Reason(Kind.FULL, bool(login) and not host, full),
        Reason(Kind.OSLESS, facts.form == "static" and not facts.runs, _osless(facts)),
        Reason(Kind.THIN, is_dynamic and not against, against or small),
        Reason(Kind.SHARED, suits=True, why=against or "it would do, with more around it than it needs"),
    )


def _needs_of_host(facts: Facts, *, logs_in: bool) -> str:
    """Say what of the host it asks for, "" for nothing."""
    # What logs users in may lead tunnels for them, which is an option: sshd(8).
    devices = [one for one in facts.devices if not (logs_in and one.startswith(_TUNNELS))]
    calls = sorted(_HOST & facts.names)
    found = [f"it names {', '.join(devices)}"] if devices else []
    found += [f"it calls {', '.join(calls)}"] if calls else []
    return "; ".join(found)


def _closure(facts: Facts) -> str:
    return f"{facts.files} files, {facts.size / 1e6:.1f} MB"


def _against_thin(facts: Facts) -> str:
    """Say what speaks against a root made of its closure, "" for nothing."""
    found = []
    if facts.form == "script":
        found.append(f"it is a script for {facts.interpreter}, whose modules no file names")
    if facts.lacking:
        found.append(f"its closure cannot be had, for {facts.lacking}")
    if facts.files > MOST_FILES or facts.size > MOST_BYTES:
        found.append(f"its closure is large: {_closure(facts)}")
    if facts.runs:
        found.append(f"it runs other programs: {some(facts.runs, _NAMED)}")
    if facts.config_writable:
        found.append(f"its user writes to its configuration: {some(facts.config_writable, _NAMED)}")
    return "; ".join(found)


def _full(login: list[str], but: str) -> str:
    return f"it lets users log in: {', '.join(login)}{but}" if login else "it lets nobody log in"


def _osless(facts: Facts) -> str:
    if facts.form != "static":
        return f"it is no static binary: {'a script' if facts.form == 'script' else 'it needs a loader'}"
    if facts.runs:
        return f"it is static, but runs other programs: {some(facts.runs, _NAMED)}"
    return "it is static: it needs no library, no loader and no shell"


def _notes(facts: Facts, kind: Kind) -> tuple[str, ...]:
    notes = [f"package: {facts.package}" if facts.package else "no package has this file"]
    if facts.unit:
        notes.append(f"the host starts it by {facts.unit}: stop that before the jail is started")
    if facts.socket:
        notes.append(f"{facts.socket} gives it its sockets, which a jail has not: let it open its own")
    if facts.setuid:
        notes.append("it is setuid or setgid: that does not work in a jail")
    # What serves a port that is known may leave the listening to a library, as named(8) does.
    if facts.form == "dynamic" and not facts.names & _SERVES and not facts.ports:
        notes.append("it does not seem to listen anywhere: is it a daemon?")
    if kind is Kind.THIN and LOADS in facts.names:
        found = (
            f"proposed: {some(facts.modules, _NAMED)}"
            if facts.modules
            else "none are known: see thin.modules"
        )
        notes.append(f"it loads libraries by name; {found}")
    if kind is Kind.THIN and facts.names & _EXEC:
        notes.append("it can run other programs, though it names none: those would be missing")
    if len(facts.command) < 2 and not facts.unit:
        notes.append("its arguments are not known: it has to stay in the foreground")
    if not facts.ports:
        notes.append("its ports are not known: add service.ports and service.ready")
    return tuple(notes)


def _settings(facts: Facts, kind: Kind) -> dict[str, Any]:
    match kind:
        case Kind.SERVICE:
            return {"confine": {"options": ["net_basic"]}}
        case Kind.OSLESS:
            return _osless_settings(facts)
        case Kind.THIN:
            return _thin_settings(facts)
        case _:
            return _world_settings(facts, kind)


def _service(facts: Facts, command: list[str]) -> dict[str, Any]:
    service: dict[str, Any] = {"command": command}
    low = [port for port in facts.ports if int(port.partition("/")[0]) < 1024]
    becomes = bool(facts.user) and bool(facts.names & _BECOMES)
    if facts.user and not becomes:
        service["user"] = facts.user
    if facts.platform is Platform.LINUX:
        capabilities = ["net_bind_service"] if low else []
        capabilities += ["setuid", "setgid"] if becomes else []
        service |= {"capabilities": capabilities} if capabilities else {}
        owner = {"owner": facts.user} if facts.user else {}
        run = [{"path": f"run/{one}", **owner} for one in facts.run]
        service |= {"run": run} if run else {}
    if facts.ports:
        service["ports"] = list(facts.ports)
        tcp = [port.partition("/")[0] for port in facts.ports if port.endswith("/tcp")]
        service |= {"ready": {"tcp": f"127.0.0.1:{tcp[0]}"}} if tcp else {}
    return service


def _command(facts: Facts) -> list[str]:
    return list(facts.command) or [facts.path]


def _thin_settings(facts: Facts) -> dict[str, Any]:
    settings: dict[str, Any] = {"service": _service(facts, _command(facts))}
    thin: dict[str, Any] = {}
    if facts.user and "user" not in settings["service"]:
        thin["users"] = [facts.user]
    if facts.modules and LOADS in facts.names:
        thin["modules"] = list(facts.modules)
    if facts.config_files:
        thin["files"] = list(facts.config_files)
    if thin:
        settings["thin"] = thin
    mounts = _mounts(facts)
    return {**settings, **({"mounts": mounts} if mounts else {})}


def _mounts(facts: Facts) -> list[dict[str, Any]]:
    found = [{"source": one, "target": one[1:]} for one in facts.config]
    return [*found, *({"source": one, "target": one[1:], "writable": True} for one in facts.state)]


def _osless_settings(facts: Facts) -> dict[str, Any]:
    name = _name(facts)
    service = _service(facts, [f"/{name}", *facts.command[1:]])
    # By number, and no /run: there is no passwd(5), and nothing to write to.
    settings = {
        "osless": {"program": facts.path, "path": name},
        "service": {key: value for key, value in service.items() if key not in {"user", "run"}},
    }
    mounts = _mounts(facts)
    return {**settings, **({"mounts": mounts} if mounts else {})}


def _world_settings(facts: Facts, kind: Kind) -> dict[str, Any]:
    settings: dict[str, Any] = {"service": _service(facts, _command(facts))}
    if facts.package:
        settings["packages"] = [facts.package]
    owner = {"owner": facts.user} if facts.user else {}
    state = [{"path": one[1:], **owner} for one in facts.state]
    if state and kind is Kind.SHARED:
        settings["state"] = state
    return settings
