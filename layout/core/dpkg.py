"""The status file of dpkg(1): which packages a base has."""

from __future__ import annotations

import re

_FIELD = re.compile(r"^(Package|Status|Provides): (.*)$", re.MULTILINE)
_DETAIL = re.compile(r"\s*\([^)]*\)|:[a-z0-9-]+")


def installed(status: str) -> set[str]:
    """Return the names of installed packages, and of what they provide."""
    found: set[str] = set()
    for paragraph in status.split("\n\n"):
        fields = dict(_FIELD.findall(paragraph))
        # "want flag state": unpacked or half-configured does not work yet.
        if "Package" not in fields or fields.get("Status", "").split()[-1:] != ["installed"]:
            continue
        found.add(fields["Package"].strip())
        found.update(_DETAIL.sub("", name).strip() for name in fields.get("Provides", "").split(","))
    return found - {""}
