"""Checks of FreeBSD that hold whatever a profile says: the kernel's corrections, limits of a running jail."""

from __future__ import annotations

import re
from collections.abc import Iterator

from layout.actions.verifying.scene import JailScene, Scene
from layout.core.errors import some
from layout.core.findings import Finding, error, warning
from layout.core.model import Platform
from layout.core.release import open_advisories
from layout.host.site import running_platform

_POWERFUL = re.compile(
    r"k?mem|io|pci|kmsg|klog|dev(ctl2?|stat)|xpt\d*|pass\d+|nvme\d.*|mdctl|md\d.*|(a?da|nda|nvd|vtbd|cd|mmcsd)\d.*"
    r"|(gpt|gptid|label|ufs|ufsid|diskid|zvol|mapper|usb|vmm|vmm\.io)/.*|ugen.*|vmmctl|geom\.ctl"
)
"""Devices through which root of a jail is root of the host: its memory, its disks, its busses.

Not zfs: devfsrules_jail shows it, and without datasets of its own a jail can do nothing with it.
"""
_NAMED = 4


def _is_freebsd() -> bool:
    return running_platform() is Platform.FREEBSD


def kernel(scene: Scene) -> Iterator[Finding]:
    """S11: the kernel has the corrections that jails which share a tree depend on."""
    if not _is_freebsd():
        return
    from layout.host.freebsd import release

    scene.checks += 1
    found = release.kernel()
    lacking = open_advisories(found)
    if lacking is None:
        hint = "compare its date with those of FreeBSD-SA-26:66.jail and SA-26:42"
        yield warning("S11-kernel", "uname -r", f"{found}, which has no patch level", "a -RELEASE", hint)
    for advisory in lacking or ():
        hint = f"freebsd-update fetch install, then reboot: {advisory.what}"
        yield warning("S11-kernel", "uname -r", found, f"one with {advisory.name} corrected", hint)


def limits(scene: JailScene) -> Iterator[Finding]:
    """S11: a running jail sees no mounts, mounts nothing, changes no file flags and starts no jails."""
    # rc.subr(8) chooses for a service, under another name: its own findings compare that.
    if not _is_freebsd() or scene.running is None or scene.design.is_of_host:
        return
    from layout.host.freebsd import jails

    asked = scene.jail.settings.jail
    now = jails.every_parameter(scene.name)
    expected = {"enforce_statfs": "2", "children.max": "0", "allow.chflags": "false"}
    expected |= {name: "false" for name in now if re.fullmatch(r"allow\.mount(\..+)?", name)}
    chosen = {f"allow.{word}" for word in asked.allow}
    if asked.enforce_statfs < 2:
        chosen.add("enforce_statfs")
    scene.scene.checks += len(expected)
    for name, wanted in expected.items():
        is_ = now.get(name, "not told")
        if is_ == wanted:
            continue
        if name in chosen:
            hint = "take it out of the profile, if the service can live without"
            yield warning("S11-allowed", scene.top, f"{name}={is_}, as the profile asks", wanted, hint)
        else:
            hint = f"layout restart {scene.name}; find out who changed it"
            yield error("S11-allowed", scene.top, f"{name}={is_}", f"{name}={wanted}", hint)
    if scene.design.has_devices and now.get("devfs_ruleset", "0") == "0":
        hint = f"layout restart {scene.name}: without one, a devfs in it shows every device"
        yield error("S11-ruleset", scene.top, "devfs_ruleset=0", "the number of a ruleset", hint)


def devices(scene: JailScene) -> Iterator[Finding]:
    """S11: no device in the jail leads to the memory, the disks or the busses of the host."""
    if not _is_freebsd():
        return
    from layout.host.freebsd import devfs

    live = scene.scene.live
    for target in live.below(scene.top):
        if live.at(target)[-1].fstype != "devfs":
            continue
        nodes = devfs.nodes(target)
        scene.scene.checks += len(nodes)
        strong = [node for node in nodes if _POWERFUL.fullmatch(node)]
        if strong:
            found = f"{len(nodes)} devices, among them {some(strong, _NAMED)}"
            hint = f"another devfs_ruleset in the profile, then layout restart {scene.name}"
            yield error("S11-devices", target, found, "none that leads to the host", hint)


def descriptors(scene: JailScene) -> Iterator[Finding]:
    """S11: no fdescfs(5), through which a descriptor becomes a name again."""
    live = scene.scene.live
    for target in live.below(scene.top):
        if live.at(target)[-1].fstype == "fdescfs":
            hint = f"umount {target}, and take it out of what mounts it"
            yield error("S11-fdescfs", target, "a fdescfs", "none in a jail", hint)
