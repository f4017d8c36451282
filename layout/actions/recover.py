"""`layout recover`: finish or undo what a crash interrupted."""

from __future__ import annotations

from layout.actions import destroy, running
from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.actions.make import clean
from layout.actions.populate import finish_commit
from layout.core.model import Platform
from layout.host import records
from layout.host.site import running_platform


def recover(context: Context) -> list[str]:
    """Bring ROOT back to a state that the next command understands; return what was done, in words.

    Raises LayoutError when something stands in the way. The caller holds the lock, so what looks
    unfinished is not being worked on.
    """
    done: list[str] = []
    with context.open() as root, context.state(root) as state:
        if finish_commit(root, state):
            done.append("base: finished, it was complete but not in its place")
        done += clean(root, state, context.site.etc)
        if running_platform() is Platform.FREEBSD:
            from layout.actions import manage_freebsd
            from layout.host.freebsd import jails, probe

            names = [record.name for record in records.jails(state)]
            done += manage_freebsd.recover(context.site, state, names)
            listed = jails.listed()
            for name in names:
                done += [f"{name}: ended jail {jail}, left by a probe" for jail in probe.clear(name, listed)]
        for record in records.jails(state):
            if record.state == "destroying":
                destroy.finish(context, root, state, record)
                done.append(f"{record.name}: destroyed to the end")
                continue
            design = design_of(record.kind)
            if said := design.recover(context, root, state, record):
                done.append(said)
            unrecorded = design.unrecorded and running_platform() is Platform.FREEBSD
            if unrecorded or state.lstat(f"run/{record.name}.toml") is not None:
                (plan,) = context.standing([record.name])
                if running.leftovers(context, plan):
                    done.append(f"{record.name}: what was left of its service taken away")
    return done
