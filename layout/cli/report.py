"""What people read: the outcome of init, the findings of verify, the changes of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layout.cli.output import CYAN, GREEN, RED, YELLOW, Output, plural
from layout.core.findings import Finding, Report

if TYPE_CHECKING:
    from layout.actions.init import Outcome
    from layout.actions.manage import Managed
    from layout.actions.manage_base import BaseManaged
    from layout.actions.probing import Probed


def print_init(output: Output, outcome: Outcome) -> None:
    """Print what init did."""
    for path in outcome.changes:
        output.detail(f"made {path}")
    base = outcome.base
    if base is not None and any(path == "j/mroot" for path in outcome.changes):
        left_out = ", ".join(f"{count} x {kind}" for kind, count in sorted(base.left_out.items()))
        output.result(
            f"base: {base.entries} entries, {base.bytes / 1e6:.1f} MB from {base.source}"
            + (f"; left out: {left_out}" if left_out else "")
            + (f"; {plural(len(base.setuid), 'setuid file')}" if base.setuid else "")
        )
        for note in base.notes:
            output.note(f"base: {note}")
        if base.removed:
            output.detail(f"removed from the skeleton: {', '.join(base.removed)}")
    for name, lacking in outcome.missing.items():
        from layout.actions.packages import hint

        output.note(f"{output.paint(YELLOW, 'warning')} {name}: the base lacks {', '.join(lacking)}")
        output.note(f"  {output.paint(CYAN, 'hint')}: {hint(lacking)}")
    output.result(f"{plural(len(outcome.changes), 'change')}")
    if outcome.report is not None:
        print_report(output, outcome.report)


def print_report(output: Output, report: Report) -> None:
    """Print findings under the name they belong to, then the counts."""
    width = max([len(name) for name in report.jails] + [4])
    if report.host.findings:
        _section(output, "host", width, report.host.findings)
    for name, jail in report.jails.items():
        _section(output, name, width, jail.findings)
    counts = report.counts
    tried = f", {plural(counts.probes, 'probe')}" if counts.probes else ""
    output.result(
        f"{plural(len(report.jails), 'jail')}, {plural(counts.checks, 'check')}"
        f"{tried}: "
        f"{plural(counts.errors, 'error')}, {plural(counts.warnings, 'warning')}"
    )


def _section(output: Output, name: str, width: int, findings: list[Finding]) -> None:
    errors = any(finding.severity == "error" for finding in findings)
    if errors:
        word = output.paint(RED, "FAILED")
    elif any(finding.severity == "warning" for finding in findings):
        word = output.paint(YELLOW, "ok, with warnings")
    else:
        word = output.paint(GREEN, "ok")
    output.result(f"{name.ljust(width)}  {word}")
    for finding in findings:
        if finding.severity == "note":
            mark = output.paint(GREEN, "note")
            output.result(f"  {mark} {finding.code} {finding.path}: {finding.found}, {finding.expected}")
            continue
        mark = output.paint(RED, "error") if finding.severity == "error" else output.paint(YELLOW, "warning")
        output.result(
            f"  {mark} {finding.code} {finding.path}: found {finding.found}, expected {finding.expected}"
        )
        if finding.hint:
            output.result(f"    {output.paint(CYAN, 'hint')}: {finding.hint}")


def print_changes(output: Output, name: str, outcome: Managed) -> None:
    """Print what a session changed: on stderr, since stdout was the command's own."""
    if output.json:
        output.document({"status": outcome.status, "changes": outcome.changes, "notes": outcome.notes})
        return
    for note in outcome.notes:
        output.note(note)
    for change in outcome.changes:
        output.note(f"{change.kind:8} {change.path}")
    if outcome.compared:
        output.note(f"{name}: {plural(len(outcome.changes), 'change')} in s and mroot")


def print_base_session(output: Output, outcome: BaseManaged) -> None:
    """Print what a session in the base changed, and what became of it in each jail."""
    if output.json:
        jails = {
            name: {"ok": one.ok, "changes": one.changes, "conflicts": one.conflicts, "error": one.error}
            for name, one in outcome.merged.items()
        }
        output.document(
            {
                "ok": not outcome.exit_code,
                "status": outcome.status,
                "changes": outcome.changes,
                "setuid": outcome.setuid,
                "jails": jails,
                "pending": outcome.pending,
                "probes": outcome.probed.count,
                "findings": outcome.probed.findings,
            }
        )
        return
    for change in outcome.changes:
        output.note(f"{change.kind:8} {change.path}")
    for path in outcome.setuid:
        output.note(f"setuid   {path}")
    output.note(f"base: {plural(len(outcome.changes), 'change')} in mroot and the skeleton")
    print_merges(output, outcome)


def print_merges(output: Output, outcome: BaseManaged) -> None:
    """Print one line for each change of each jail."""
    for name, one in outcome.merged.items():
        for done in one.changes:
            output.note(f"{name}: {done.kind:8} {done.path}")
        for conflict in one.conflicts:
            output.note(f"{name}: {output.paint(RED, 'conflict')} {conflict.path}: {conflict.reason}")
        if one.conflicts:
            output.note(f"{name}: left as it was; put the files right, then: layout base merge {name}")
        elif one.error:
            output.note(f"{name}: {output.paint(RED, 'not merged')}: {one.error}")
        else:
            output.note(f"{name}: {plural(len(one.changes), 'change')} merged")
    waiting = [name for name in outcome.pending if name not in outcome.merged]
    if waiting:
        output.note(f"still to be merged: {', '.join(waiting)}; layout base merge does it")
    print_probed(output, outcome.probed)


def print_probed(output: Output, probed: Probed) -> None:
    """Print what probes found at the end of another command, under the jails it was found in."""
    width = max([len(name) for name in probed.findings] + [4])
    for name, findings in probed.findings.items():
        _section(output, name, width, findings)
    if probed.count:
        output.detail(f"{plural(probed.count, 'probe')}")
