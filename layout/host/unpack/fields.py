"""Number fields of tar headers, remembered as written: most entries of an archive repeat them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from layout.host.unpack.report import ArchiveError

__all__ = ["Fields"]

_REMEMBERED = 4096


class Fields:
    """Read the fields of one archive; `broken` makes the error for what is no number."""

    def __init__(self, broken: Callable[[str], ArchiveError]) -> None:
        self._broken = broken
        self._numbers: dict[bytes, int] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}

    def number(self, field: bytes) -> int:
        """Return a number. Raises ArchiveError."""
        found = self._numbers.get(field)
        return self._read(field) if found is None else found

    def _read(self, field: bytes) -> int:
        """Octal digits between spaces and NULs, or base 256 in two's complement (GNU tar, star)."""
        if field[0] & 0x80:
            value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
            if field[0] & 0x40:
                value -= 1 << (8 * len(field) - 1)
        else:
            digits = field.partition(b"\0")[0].strip(b" ")
            # Not int() alone: it takes signs, underscores and 0o.
            if digits and not digits.isdigit():
                raise self._broken(f"a header with the number {digits!r}")
            try:
                value = int(digits or b"0", 8)
            except ValueError:
                raise self._broken(f"a header with the number {digits!r}") from None
        if len(self._numbers) > _REMEMBERED:
            self._numbers.clear()
        self._numbers[field] = value
        return value

    def owner(self, field: bytes) -> tuple[int, int, int]:
        """Return mode, user and group, which stand side by side in few combinations. Raises ArchiveError."""
        known = self._owners.get(field)
        if known is not None:
            return known
        ids = self.number(field[:8]) & 0o7777, self.number(field[8:16]), self.number(field[16:])
        if len(self._owners) > _REMEMBERED:
            self._owners.clear()
        self._owners[field] = ids
        return ids

    def matches(self, field: bytes, total: int) -> bool:
        """Say whether a checksum field says `total`, however it is written."""
        try:
            return self.number(field) == total
        except ArchiveError:
            return False
