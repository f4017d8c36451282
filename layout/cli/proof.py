"""What people read of a selftest and of an audit: what can be done, the residue by name, what is not so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layout.actions.kinds import design_of
from layout.cli.output import BOLD, GREEN, RED, YELLOW, Output, columns, plural
from layout.core.attacks import BAD, Counts, Result, counts

if TYPE_CHECKING:
    from layout.actions.selftest import Document
    from layout.core.audit import Audit, Reachable, Writable


def print_selftest(output: Output, found: Document) -> None:
    """Print it; with --verbose each attack as well."""
    output.result(f"{found.kernel}{', in a user namespace' if found.user_namespace else ''}")
    rows: list[tuple[str, ...]] = [("attacked", "tried", "blocked", "residue", "failed", "")]
    for place in found.places:
        one = counts(place.results)
        numbers = (one.tried, one.blocked, one.residue, len(_failed(place.results)))
        rows.append((place.name, *(str(n).rjust(7) for n in numbers), place.note))
    for line in columns([(r[0], *(cell.rjust(7) for cell in r[1:5]), r[5]) for r in rows]):
        output.result(line)
    if output.verbose:
        _print_each(output, found)
    _print_residue(output, found)
    for other in found.not_tried:
        output.result(f"not tried here: {output.paint(YELLOW, other.name)}, because {other.because}")
    _print_failed(output, found)
    output.result(_sum(found.counts))
    output.result(output.paint(GREEN, "ok") if found.ok else output.paint(RED, "FAILED"))
    if found.counts.not_run or found.counts.not_shown:
        who = "as root, and " if found.user_namespace else ""
        output.note(f"what was not run is not known to be blocked: run it {who}with what is named above")


def _print_failed(output: Output, found: Document) -> None:
    """Print what worked or is odd, each; what proves nothing, once, with where that is so."""
    quiet: dict[tuple[str, str], list[str]] = {}
    for place in found.places:
        for one in _failed(place.results):
            if one.verdict in {"not run", "not shown"}:
                quiet.setdefault((one.verdict, one.id), []).append(place.name)
                continue
            output.result(f"  {output.paint(RED, 'failed')} {place.name}: {one.id}: {one.text}: {_said(one)}")
    together: dict[tuple[str, str], list[str]] = {}
    for (verdict, name), places in quiet.items():
        together.setdefault((verdict, "; ".join(places)), []).append(name)
    for (verdict, where), names in together.items():
        output.result(f"  {output.paint(RED, verdict)} {where}: {', '.join(names)}")


def _failed(results: tuple[Result, ...]) -> list[Result]:
    return [one for one in results if one.must_be_blocked and one.verdict in BAD]


def _said(one: Result) -> str:
    return f"{one.verdict}: {one.found}" if one.found else one.verdict


def _print_each(output: Output, found: Document) -> None:
    for place in found.places:
        rows = [(f"  {place.name}", one.id, one.verdict, one.found) for one in place.results]
        for line in columns(rows):
            output.result(line)


def _print_residue(output: Output, found: Document) -> None:
    """Print what works though nothing is broken, once, with where it does."""
    named: dict[str, tuple[Result, list[str]]] = {}
    for place in found.places:
        for one in place.results:
            if one.verdict == "residue":
                named.setdefault(one.id, (one, []))[1].append(place.name)
    if named:
        output.result("residue, known and named (docs/security.md, What remains):")
    tried = [one.id for place in found.places for one in place.results if one.verdict != "not run"]
    for one, places in named.values():
        where = "" if len(places) == tried.count(one.id) else f" ({'; '.join(places)})"
        output.result(f"  {output.paint(YELLOW, one.id)}: {one.text}{where}")


def _sum(total: Counts) -> str:
    more = (
        (total.worked, "worked that must not"),
        (total.odd, "odd"),
        (total.not_shown, "not shown"),
        (total.not_run, "not run"),
    )
    words = [plural(total.tried, "attack") + " tried", f"{total.blocked} blocked", f"{total.residue} residue"]
    return ", ".join([*words, *(f"{count} {what}" for count, what in more if count)])


def print_audit(output: Output, name: str, found: Audit) -> None:
    """Print what root of one jail can do, a heading each."""
    grade = f", {found.grade}" if found.grade else ""
    output.result(f"{output.paint(BOLD, name)}  {found.kind}, {found.platform}, {found.state}{grade}")
    output.result(f"  (mounts and privileges by {found.seen_by})")
    rows: list[tuple[str, ...]] = [
        (_names(one), one.fstype, one.source, ", ".join(one.powers)) for one in found.writable
    ]
    _section(output, "writable", rows)
    both = ", ".join(found.writable_and_executable)
    _section(output, "writable and executable", [(output.paint(RED, both),)] if both else [])
    # Nobody walks through the host's tree for a service: "none" would say that somebody had.
    none = "the host's" if design_of(found.kind).is_of_host else "none"
    for title, powers in (
        ("setuid files and file capabilities", found.setuid),
        ("device nodes", found.devices),
        ("sockets and FIFOs", found.sockets),
    ):
        _section(output, title, [_reachable(one) for one in powers], none)
    _section(output, "network", [(one,) for one in found.network])
    _section(output, "capabilities", [(one.name, one.means) for one in found.capabilities])
    _section(output, "confinement", [(one,) for one in found.confinement])
    if found.beyond:
        _section(output, "beyond its plan", [(output.paint(RED, one),) for one in found.beyond])
    rows = [(one.path, f"for {one.reader}", one.holds) for one in found.autorun]
    _section(output, "run without being asked", rows)
    shown = [one for one in found.knobs if one.value and (not one.ok or output.verbose)]
    rows = [(f"{one.name}={one.value}", f"safer: {one.wanted}", one.why) for one in shown]
    _section(output, "settings of this kernel that help an attacker", rows)
    rows = [(f"{one.id}:", ": ".join(filter(None, (one.what, " ".join(one.paths))))) for one in found.residue]
    _section(output, "residue", rows)
    for path in found.unseen:
        output.result(f"  {output.paint(RED, 'could not look')}: {path}")


def _section(output: Output, title: str, rows: Sequence[tuple[str, ...]], none: str = "none") -> None:
    output.result(f"  {title}{'' if rows else f': {none}'}")
    for line in columns(rows):
        output.result(f"    {line}")


def _names(one: Writable) -> str:
    return f"{one.path} ({', '.join(one.shown_as)})" if one.shown_as else one.path


def _reachable(one: Reachable) -> tuple[str, ...]:
    return one.path, one.what, "" if one.works else "without effect here"
