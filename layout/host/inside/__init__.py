"""In a child that is confined to a jail's root: really tries what must not work, and what must.

Paths here are the jail's own, and lead nowhere else: the child has changed its root for good before anything
of this package is called, and holds no more rights than the jail does. It executes nothing of the jail, waits
for nobody, and takes away what it makes.
"""

from layout.host.inside.answer import collect, failed, send
from layout.host.inside.task import Powers, Task
from layout.host.inside.tries import attempts

__all__ = ["Powers", "Task", "attempts", "collect", "failed", "send"]
