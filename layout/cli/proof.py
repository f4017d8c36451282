"""What people read of a selftest: a line a place, the residue by name, and what is not as it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layout.cli.output import GREEN, RED, YELLOW, Output, columns, plural
from layout.core.attacks import BAD, Counts, Result, counts

if TYPE_CHECKING:
    from layout.actions.selftest import Document


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
    for place in found.places:
        for bad in _failed(place.results):
            output.result(f"  {output.paint(RED, 'failed')} {place.name}: {bad.id}: {bad.text}: {_said(bad)}")
    output.result(_sum(found.counts))
    output.result(output.paint(GREEN, "ok") if found.ok else output.paint(RED, "FAILED"))
    if found.counts.not_run or found.counts.not_shown:
        who = "as root, and " if found.user_namespace else ""
        output.note(f"what was not run is not known to be blocked: run it {who}with what is named above")


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
    every = sum(1 for place in found.places if place.results and not place.name.startswith("manage"))
    for one, places in named.values():
        where = "" if len(places) == every else f" ({'; '.join(places)})"
        output.result(f"  {output.paint(YELLOW, one.id)}: {one.text}: {one.found}{where}")


def _sum(total: Counts) -> str:
    more = (
        (total.worked, "worked that must not"),
        (total.odd, "odd"),
        (total.not_shown, "not shown"),
        (total.not_run, "not run"),
    )
    words = [plural(total.tried, "attack") + " tried", f"{total.blocked} blocked", f"{total.residue} residue"]
    return ", ".join([*words, *(f"{count} {what}" for count, what in more if count)])
