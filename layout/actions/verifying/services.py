"""Checks of sessions and running services, and of the files that a jail is started by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from layout.actions import booting_freebsd
from layout.actions.kinds import design_of
from layout.actions.running import drift
from layout.actions.verifying.scene import JailScene, unseen
from layout.core.errors import LayoutError
from layout.core.findings import Finding, error, warning
from layout.core.model import Platform
from layout.core.plan import host_files
from layout.core.running import RunRecord
from layout.core.tables import hand_edited
from layout.host import hostfiles, records


def session(scene: JailScene) -> Iterator[Finding]:
    """S3: nobody changes the jail while it is proven."""
    scene.scene.checks += 1
    if scene.session is not None:
        hint = "end the session, then verify again"
        found = f"a manage session of {scene.session}"
        yield warning("S3-session", scene.view, found, "none while it is proven", hint)


def left_by_session(scene: JailScene) -> Iterable[Finding]:
    """S3: a session that was killed left nothing. On Linux it vanishes by itself."""
    if scene.session is not None or scene.jail.platform is not Platform.FREEBSD:
        return []
    from layout.actions import manage_freebsd

    return manage_freebsd.findings(scene.scene.site, scene.scene.state, scene.name)


_PATIENCE = 5.0
"""Seconds until the child of another run, which probes the jail has ended."""
_PROBE = "layout-probe"


def left_inside(scene: JailScene) -> Iterator[Finding]:
    """S3: nobody is in a jail that does not run, as what survives the end of a service would be."""
    if scene.jail.platform is not Platform.LINUX or scene.running is not None or scene.session is not None:
        return
    if scene.scene.state.lstat(f"run/{scene.name}.toml") is not None:
        return  # it is just being started, or a finding of its own tells what is left
    scene.scene.checks += 1
    end = time.monotonic() + _PATIENCE
    while found := scene.scene.inhabitants.get(scene.name):
        if any(one.command != _PROBE for one in found) or time.monotonic() >= end:
            break
        time.sleep(0.1)
        del scene.scene.inhabitants
    if found:
        from layout.host.linux import holders

        hint = "find out what it is, and end it by its number"
        who = holders.describe(found)
        yield error("S3-left", scene.top, who, "nobody in a jail that does not run", hint)


def ended(scene: JailScene) -> Iterator[Finding]:
    """S5: no service has ended by itself."""
    scene.scene.checks += 1
    path = f"run/{scene.name}.toml"
    state = scene.scene.state
    if scene.running is None and state.lstat(path) is not None:
        hint = f"layout stop {scene.name}, or layout recover"
        record = records.read(state, path, RunRecord)
        found = "what is left of a service that ended by itself"
        if record is not None and record.table and _is_applied(record.table):
            found += f", with its rules: table {record.table}"
        yield warning("S5-service", state.show(path), found, "a service that runs, or none", hint)


def _is_applied(name: str) -> bool:
    from layout.host.linux import nft

    return nft.listed(name) is not None


def confined(scene: JailScene) -> Iterator[Finding]:
    """S3: a running service has no more than its profile gives it."""
    if scene.running is not None:
        hint = f"layout restart {scene.name}; if that does not help, please report it"
        for where, found, expected in drift(scene.scene.context, scene.plan):
            yield error("S3-running", where, found, expected, hint)


def guaranteed(scene: JailScene) -> Iterator[Finding]:
    """S3: the engine of a running service gives all guarantees."""
    found = scene.running
    for note in found.notes if found is not None and found.grade == "weak" else ():
        hint = "a port from 1024 on, or another engine: see status in layout(8)"
        yield warning("S3-weak", scene.name, note, "all guarantees from the engine", hint)


def parameters(scene: JailScene) -> Iterable[Finding]:
    """S2: a running jail of FreeBSD has the parameters of its plan."""
    return booting_freebsd.findings(scene.scene.site, scene.plan)


def design(scene: JailScene) -> Iterable[Finding]:
    """What the jail's kind promises beyond what all kinds do."""
    host = scene.scene
    return design_of(scene.jail.kind).findings(host.context, host.root, scene.plan, quick=host.quick)


def merged(scene: JailScene) -> Iterator[Finding]:
    """S9: s has what the last sessions in the base changed. What else s has is the administrator's work."""
    scene.scene.checks += 1
    if "merge" not in scene.scene.kept:
        return
    from layout.actions.bases import behind  # with all that merges: rarely needed here

    yield from behind(scene.scene.site, scene.scene.state, [scene.name])


def files(scene: JailScene) -> Iterator[Finding]:
    """S12: tables and jail.conf(5) are those of the plan."""
    for file in host_files(scene.plan, scene.scene.site):
        scene.scene.checks += 1
        try:
            text = hostfiles.read_text(file.path)
        except (OSError, LayoutError) as problem:
            yield unseen(file.path, problem)
            continue
        if text == file.text:
            continue
        found = "an older one"
        if text is None or hand_edited(text):
            found = "nothing" if text is None else "one edited by hand"
        code = "S12-jail-conf" if file.path.endswith(".conf") else "S12-fstab"
        yield error(code, file.path, found, file.reason, "layout init NAME")
