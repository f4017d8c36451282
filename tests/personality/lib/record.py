"""collections.namedtuple, without that import: these programs start often."""

from __future__ import annotations

from _operator import itemgetter


def record(fields: str) -> type:
    """A class of tuples whose places have these names."""
    names = fields.split()

    def make(cls: type, *values: object) -> tuple:
        if len(values) != len(names):
            raise TypeError(f"{len(values)} values for {fields}")
        return tuple.__new__(cls, values)

    def replace(self: tuple, **changed: object) -> tuple:
        values = [changed.pop(name, value) for name, value in zip(names, self, strict=True)]
        if changed:
            raise TypeError(f"no {changed}")
        return type(self)(*values)

    places = {name: property(itemgetter(place)) for place, name in enumerate(names)}
    return type("Record", (tuple,), {"__slots__": (), "__new__": make, "_replace": replace, **places})
