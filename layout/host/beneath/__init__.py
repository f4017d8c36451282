"""The one door to what lies below ROOT: by directory descriptor, one component at a time.

`t` belongs to a jail and may change at any moment, so no path string below ROOT is ever handed to the
kernel's ordinary lookup: every step is opened without following links, and what was opened is what is used.
"""

from layout.host.beneath.directory import Dir, open_root
from layout.host.beneath.items import Item, load_tree, put_flags, read_tree, write_items
from layout.host.beneath.remove import remove_tree
from layout.host.beneath.walk import Linked, Seen, snapshot, symlinks, walk

__all__ = [
    "Dir",
    "Item",
    "Linked",
    "Seen",
    "load_tree",
    "open_root",
    "put_flags",
    "read_tree",
    "remove_tree",
    "snapshot",
    "symlinks",
    "walk",
    "write_items",
]
