"""The registry of checks: what is proven of a ROOT and of each jail, in the order of the report.

A check of one kind of jail or a probe is one more line here, and one row in docs/findings.md. Tests hold that
each of them finds a sabotage which is overlooked without it.
"""

from __future__ import annotations

from layout.actions.verifying import autorun, entries, host, mounts, probes, services, space, trees
from layout.actions.verifying.scene import Check, JailScene, Scene, When

HOST: tuple[Check[Scene], ...] = (
    Check("S4", "parents", host.parents, ("S4-parent",)),
    Check("S5", "base record", host.base_record, ("S5-base",)),
    Check("S5", "interrupted", host.interrupted, ("S5-interrupted",)),
    Check("S5", "shared entries", entries.missing, ("S5-missing",)),
    Check("S5", "shared links", entries.links, ("S5-link",)),
    Check("S5", "shared modes", entries.modes, ("S5-mode",)),
    Check("S4", "mode of ROOT", entries.root_mode, ("S4-mode",)),
    Check("S8", "shared entries seen", entries.looked_at, ()),
    Check("S5", "stray directories", host.stray_directories, ("S5-stray",)),
    Check("S1", "stray mounts", host.stray_mounts, ("S1-stray",)),
    Check("S3", "writable views", host.writable_views, ("S3-view",)),
    Check("S3", "writable trees of two jails", host.shared_writable, ("S3-shared",)),
    Check("S4", "reachable t", host.reachable, ("S4-reachable",)),
    Check("S12", "host fstab", host.host_fstab, ("S12-host-fstab",), When.FULL),
    Check("S12", "rc.conf", host.rc_conf, ("S12-rc-conf",), When.FULL),
    Check("S10", "room", space.room, ("S10-space",)),
    Check("S9", "mroot and its manifest", trees.drift, ("S9-drift",), When.FULL),
    Check("S6", "setuid in mroot", trees.setuid, ("S6-setuid",), When.FULL),
    Check("S6", "capabilities in mroot", trees.capabilities, ("S6-capability",), When.FULL),
    Check("S6", "owners of mroot", trees.owners_of_mroot, ("S6-owner",), When.FULL),
    Check("S5", "links into t", trees.into_t, ("S5-into-t",), When.FULL),
    Check("S6", "FIFOs in mroot", trees.two_way, ("S6-special",), When.FULL),
    Check("S6", "devices in mroot", trees.devices, ("S6-device",), When.FULL),
    Check("S6", "mroot closed", trees.loose, ("S6-loose",), When.FULL),
    Check("S8", "mroot seen", trees.whole, (), When.FULL),
)
"""Checks of what all jails share."""

JAIL: tuple[Check[JailScene], ...] = (
    Check("S1", "platform", mounts.platform, ("S1-platform",)),
    Check("S1", "mounts present", mounts.present, ("S1-unmounted", "S1-missing"), here=True),
    Check("S1", "one mount a point", mounts.single, ("S1-stacked",), here=True),
    Check("S1", "sources", mounts.sources, ("S1-source",), here=True),
    Check("S2", "options", mounts.options, ("S2-options",), here=True),
    Check("S2", "template", mounts.policy, ("S2-template",)),
    Check("S2", "propagation", mounts.propagation, ("S2-propagation",), here=True),
    Check("S2", "devfs", mounts.devices, ("S2-devfs",), here=True),
    Check("S2", "W^X", mounts.writable_exec, ("S2-writable-exec",), here=True),
    Check("S1", "no other mount", mounts.unplanned, ("S1-extra",), here=True),
    Check("S4", "backing file system", mounts.backing, ("S4-backing",), here=True),
    Check("S3", "view unmounted", mounts.view, ("S3-view",), here=True),
    Check("S5", "entries", entries.missing, ("S5-missing",)),
    Check("S5", "links", entries.links, ("S5-link",)),
    Check("S5", "modes", entries.modes, ("S5-mode",)),
    Check("S8", "entries seen", entries.looked_at, ()),
    Check("S3", "session", services.session, ("S3-session",)),
    Check("S3", "left by a session", services.left_by_session, ("S3-left",), here=True),
    Check("S5", "service ended", services.ended, ("S5-service",), here=True),
    Check("S3", "service confined", services.confined, ("S3-running",), here=True),
    Check("S3", "service guaranteed", services.guaranteed, ("S3-weak",), here=True),
    Check("S5", "design", services.design, ()),
    Check("S2", "nosuid", mounts.suid, ("S2-suid",)),
    Check("S10", "room of t", space.room_of_t, ("S10-space",)),
    Check("S10", "quota", space.quota, ("S10-quota",)),
    Check("S12", "files", services.files, ("S12-fstab", "S12-jail-conf"), When.FULL),
    Check("S2", "jail parameters", services.parameters, ("S2-jail",), When.FULL),
    Check("S6", "setuid in s", trees.setuid, ("S6-setuid",), When.FULL),
    Check("S6", "capabilities in s", trees.capabilities, ("S6-capability",), When.FULL),
    Check("S6", "owners of s", trees.owners_of_s, ("S6-owner",), When.FULL),
    Check("S6", "FIFOs in s", trees.two_way, ("S6-special",), When.FULL),
    Check("S6", "devices in s", trees.devices, ("S6-device",), When.FULL),
    Check("S6", "s closed", trees.loose, ("S6-loose",), When.FULL),
    Check("S8", "s seen", trees.whole, (), When.FULL),
    Check("S7", "auto-run places", autorun.autorun, ("S7-autorun",), When.FULL),
    Check("S7", "setuid in t", trees.setuid_in_t, ("S7-setuid",), When.FULL),
    Check("S7", "capabilities in t", trees.capabilities_in_t, ("S7-capability",), When.FULL),
    Check("S7", "devices in t", trees.devices_in_t, ("S7-device",), When.FULL),
    Check("S8", "t seen", trees.whole_t, (), When.FULL),
    Check("A1", "nothing else writable", probes.writing, ("A1-writable", "A1-odd"), When.PROBE, here=True),
    Check("A2", "W^X tried", probes.executing, ("A2-executable", "A2-odd"), When.PROBE, here=True),
    Check("A3", "nothing changes", probes.changing, ("A3-changed", "A3-odd"), When.PROBE, here=True),
    Check("A4", "no privilege", probes.privileges, ("A4-allowed", "A4-odd"), When.PROBE, here=True),
    Check("A5", "setuid tried", probes.setuid, ("A5-setuid", "A5-odd"), When.PROBE, here=True),
    Check("A6", "no way out", probes.outside, ("A6-outside",), When.PROBE, here=True),
    Check("A7", "what must work", probes.working, ("A7-denied",), When.PROBE, here=True),
    Check("A8", "no channel", probes.channels, ("A8-channel", "A8-odd", "A8-unseen"), When.PROBE, here=True),
    Check("A0", "all was tried", probes.untried, ("A0-unprobed",), When.PROBE, here=True),
)
"""Checks of one jail."""
