"""What verify says: findings with stable codes, and the report they make."""

from __future__ import annotations

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as promised. Codes are documented in docs/reference.md and never change."""

    code: str
    severity: Literal["error", "warning"]
    path: str
    expected: str
    found: str
    hint: str = ""


class JailReport(msgspec.Struct):
    """Findings of one jail."""

    ok: bool
    findings: list[Finding]


class HostReport(msgspec.Struct):
    """Findings of what all jails share."""

    findings: list[Finding]


class Counts(msgspec.Struct):
    """How much was looked at, and what came of it."""

    checks: int = 0
    errors: int = 0
    warnings: int = 0
    probes: int = 0


class Report(msgspec.Struct):
    """The document of `layout verify --json`."""

    ok: bool
    jails: dict[str, JailReport]
    host: HostReport
    counts: Counts


def error(code: str, path: str, found: str, expected: str, hint: str = "") -> Finding:
    """Return a finding that makes verify fail."""
    return Finding(code, "error", path, expected, found, hint)


def warning(code: str, path: str, found: str, expected: str, hint: str = "") -> Finding:
    """Return a finding that verify reports without failing."""
    return Finding(code, "warning", path, expected, found, hint)


def report(host: list[Finding], jails: dict[str, list[Finding]], checks: int, probes: int = 0) -> Report:
    """Put findings together. It is ok when none of them is an error."""
    every = [*host, *(finding for findings in jails.values() for finding in findings)]
    errors = sum(finding.severity == "error" for finding in every)
    return Report(
        not errors,
        {name: JailReport(all(f.severity != "error" for f in found), found) for name, found in jails.items()},
        HostReport(host),
        Counts(checks, errors, len(every) - errors, probes),
    )
