"""What verify says: findings with stable codes, and the report they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Literal

import msgspec

from layout.core.errors import printable

AT_MOST = 100
"""Findings of one code in one place that are told one by one: a jail can make any number of them."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as promised. Codes are documented in docs/findings.md and never change.

    Control characters and bytes that are no UTF-8 are escaped: paths below t are a jail's words.
    """

    code: str
    severity: Literal["error", "warning", "note"]
    """A note says what is so; it is no fault."""
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

    def joined(self, other: Report) -> Report:
        """Return this report with what another says of the host, and this one does not."""
        told = {*self.host.findings, *(one for jail in self.jails.values() for one in jail.findings)}
        new = [one for one in other.host.findings if one not in told]
        again = Counter(one.severity for one in other.host.findings if one in told)
        ours, theirs = self.counts, other.counts
        counts = Counts(
            ours.checks + theirs.checks,
            ours.errors + theirs.errors - again["error"],
            ours.warnings + theirs.warnings - again["warning"],
            ours.probes + theirs.probes,
        )
        host = HostReport([*self.host.findings, *new])
        return Report(self.ok and other.ok, self.jails, host, counts)


def error(code: str, path: str, found: str, expected: str, hint: str = "") -> Finding:
    """Return a finding that makes verify fail."""
    return _finding("error", code, path, found, expected, hint)


def warning(code: str, path: str, found: str, expected: str, hint: str = "") -> Finding:
    """Return a finding that verify reports without failing."""
    return _finding("warning", code, path, found, expected, hint)


def note(code: str, path: str, found: str, expected: str) -> Finding:
    """Return what verify says though nothing is wrong: that a promise beyond the usual ones is kept."""
    return _finding("note", code, path, found, expected, "")


def _finding(
    severity: Literal["error", "warning", "note"], code: str, path: str, found: str, expected: str, hint: str
) -> Finding:
    return Finding(code, severity, printable(path), printable(expected), printable(found), printable(hint))


def named(finding: Finding, name: str) -> Finding:
    """Return a finding whose hint has the jail's name in the place of NAME."""
    return msgspec.structs.replace(finding, hint=finding.hint.replace("NAME", name))


def shortened(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with at most AT_MOST of one code, and one more that counts the rest."""
    return few(((finding.code, finding) for finding in findings), AT_MOST)


def few(findings: Iterable[tuple[Hashable, Finding]], most: int) -> list[Finding]:
    """Return at most so many findings that have one key, and one more that counts the rest of them."""
    kept: list[Finding] = []
    counts: Counter[Hashable] = Counter()
    last: dict[Hashable, Finding] = {}
    for key, finding in findings:
        counts[key] += 1
        if counts[key] <= most:
            kept.append(finding)
        else:
            last[key] = finding
    for key, finding in last.items():
        more = f"{counts[key] - most} more like these, this one the last"
        kept.append(msgspec.structs.replace(finding, found=more))
    return kept


def report(host: list[Finding], jails: dict[str, list[Finding]], checks: int, probes: int = 0) -> Report:
    """Put findings together. It is ok when none of them is an error."""
    every = [*host, *(finding for findings in jails.values() for finding in findings)]
    errors = sum(finding.severity == "error" for finding in every)
    warnings = sum(finding.severity == "warning" for finding in every)
    return Report(
        not errors,
        {
            name: JailReport(all(f.severity != "error" for f in found), shortened(found))
            for name, found in jails.items()
        },
        HostReport(shortened(host)),
        Counts(checks, errors, warnings, probes),
    )
