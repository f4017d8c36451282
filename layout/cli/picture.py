"""`layout show`: the trees, with what can be written marked."""

from __future__ import annotations

from collections.abc import Sequence

from layout.actions.context import Context
from layout.actions.kinds import design_of
from layout.cli.output import BOLD, GREEN, RED, Output
from layout.core.compare import Live
from layout.core.model import JailPlan, Mount
from layout.core.plan import LINKS, needs_base
from layout.host import table


def show(output: Output, context: Context, plans: Sequence[JailPlan]) -> None:
    """Print one picture for each jail; as JSON, the mounts of each."""
    live = Live(table.read(context.site.root))
    plans = [design_of(plan.jail.kind).shown(context, plan) for plan in plans]
    if output.json:
        output.document(
            {
                "root": context.site.root,
                "jails": {
                    plan.jail.name: {
                        side: [_entry(mount, live) for mount in mounts]
                        for side, mounts in (("jail", plan.tables.jail), ("manage", plan.tables.manage))
                    }
                    | {"kind": plan.jail.kind, "rows": dict(design_of(plan.jail.kind).rows(context, plan))}
                    for plan in plans
                },
            }
        )
        return
    output.result(output.paint(BOLD, context.site.root))
    if any(needs_base(plan.jail) for plan in plans):
        output.result("├── j/mroot                 the shared base")
    for plan in plans:
        _jail(output, context.site.root, plan, live)
        rows = design_of(plan.jail.kind).rows(context, plan)
        for index, (name, text) in enumerate(rows):
            branch = "├── " if index == 0 else "│   ├── " if index < len(rows) - 1 else "│   └── "
            output.result(f"{branch}{name.ljust(28 - len(branch))}{text}")
    output.result("└── .layout                 layout's own records")


def _entry(mount: Mount, live: Live) -> dict[str, object]:
    return {
        "target": mount.target,
        "source": mount.source,
        "writable": "ro" not in mount.options,
        "options": list(mount.options),
        "mounted": bool(live.at(mount.target)),
    }


def _jail(output: Output, root: str, plan: JailPlan, live: Live) -> None:
    name, design = plan.jail.name, design_of(plan.jail.kind)
    inside: dict[str, list[str]] = {"s": [], "t": []}
    for link, target in LINKS:
        half, _, _ = target.removeprefix("../").partition("/")
        if half in inside:
            inside[half].append(f"/{link}")
    for side, mounts in (("j", plan.tables.jail), ("manage", plan.tables.manage)):
        for index, mount in enumerate(mounts):
            below = mount.target.removeprefix(f"{root}/{side}/{name}").lstrip("/")
            branch = "├── " if index == 0 else "│   ├── " if index < len(mounts) - 1 else "│   └── "
            label = f"{side}/{name}" if index == 0 else below
            mark = output.paint(GREEN, "ro") if "ro" in mount.options else output.paint(RED, "rw")
            state = "" if live.at(mount.target) else _absent(plan, side)
            source = mount.source.removeprefix(f"{root}/")
            if design.is_made_at_start and source.endswith("/none"):
                source = "a root of its closure"  # none was made yet, so it has no name
            holds = f"  {' '.join(inside[below])}" if below in inside else ""
            output.result(f"{branch}{label.ljust(28 - len(branch))}{mark}  {source}{holds}{state}")


def _absent(plan: JailPlan, side: str) -> str:
    if design_of(plan.jail.kind).is_made_at_start:
        return "  (while it runs)"
    if side == "manage" and plan.jail.manage == "session":
        return "  (during a session)"
    return "  (not mounted)"
