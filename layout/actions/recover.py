"""`layout recover`: finish or undo what a crash interrupted."""

from __future__ import annotations

from layout.actions import destroy
from layout.actions.context import Context
from layout.actions.init import finish_commit
from layout.actions.populate import COMMIT, clear_staging
from layout.host import records
from layout.host.beneath import remove_tree


def recover(context: Context) -> list[str]:
    """Bring ROOT back to a state that the next command understands; return what was done, in words.

    Raises LayoutError when something stands in the way. The caller holds the lock, so what looks
    unfinished is not being worked on.
    """
    done = []
    with context.open() as root, root.open(".layout") as state:
        if state.lstat(COMMIT) is not None:
            finish_commit(root, state)
            done.append("base: finished, it was complete but not in its place")
        removed = clear_staging(root, state)
        if removed:
            done.append(f"base: {removed} entries of an unfinished population removed")
        for half in ("s", "t"):
            with root.open(half) as parent:
                for name in parent.names():
                    if name.startswith(".new-"):
                        remove_tree(parent, name)
                        done.append(
                            f"{half}/{name[5:]}: an unfinished copy removed; layout init makes it anew"
                        )
        for record in records.jails(state):
            if record.state == "destroying":
                destroy.finish(context, root, state, record)
                done.append(f"{record.name}: destroyed to the end")
    return done
