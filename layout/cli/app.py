"""The application: global options, what the commands share, and which module has which command."""

from __future__ import annotations

import importlib
from typing import Annotated

import msgspec
import typer

from layout.actions.context import Choice, Context
from layout.cli.output import Output
from layout.core.errors import UsageError
from layout.core.model import Boot, JailPlan, Manage, Platform, Preset

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run many services on one host, each in a jail whose root it cannot change.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Globals(msgspec.Struct):
    """The options that every command has."""

    root: str | None = None
    config: str | None = None
    output: Output = None  # type: ignore[assignment]

    def context(self, platform: Platform | None = None) -> Context:
        """Find the site."""
        return Context.find(self.root, self.config, platform)

    def described(self, context: Context, names: list[str] | None, choice: Choice) -> list[JailPlan]:
        """Return the plans of jails, whether they exist or not, and say so when nobody may know that."""
        plans = context.described(names or [], choice)
        if context.unread:
            self.output.note(
                f"{context.site.root}: no permission to look: told as layout init would make them"
            )
        if context.unmade:
            self.output.note(f"{', '.join(context.unmade)}: no such jail yet: as layout init would make it")
        return plans


COMMANDS: dict[str, tuple[str, ...]] = {
    "trees": ("init", "plan", "verify", "show", "destroy", "recover"),
    "mounts": ("mount", "umount", "fstab"),
    "rendering": ("render",),
    "sessions": ("manage",),
    "jails": ("status", "start", "stop", "restart", "exec"),
    "deploying": ("update",),
    "profiles": ("profile",),
    "advice": ("advise",),
    "bases": ("base",),
    "proving": ("audit", "selftest"),
    "completions": ("completion",),
}
"""Modules of layout.cli.commands and the commands that each has: only the one that is asked for is loaded."""


def load(command: str) -> None:
    """Load the module that has this command; all of them when none has it, as for help."""
    having = [module for module, names in COMMANDS.items() if command in names]
    for module in having or COMMANDS:
        importlib.import_module(f"layout.cli.commands.{module}")


Names = Annotated[list[str] | None, typer.Argument(help="Jails; all when none is named.", show_default=False)]
NewNames = Annotated[list[str], typer.Argument(help="Names of jails.", show_default=False)]
Profile = Annotated[
    str | None, typer.Option("--profile", help="Profile, if not the one named like the jail.")
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="Source of mroot: a directory, an archive, 'host', 'dist', 'pkgbase' or 'src:DIR'."
    ),
]
ForPlatform = Annotated[Platform | None, typer.Option("--platform", help="Whose mounts to spell.")]
WithPreset = Annotated[Preset | None, typer.Option("--preset", help="Mount options.")]
WithManage = Annotated[
    Manage | None,
    typer.Option("--manage", help="When the writable half is mounted: in a session, or always."),
]
WithBoot = Annotated[
    Boot | None,
    typer.Option("--boot", help="Who mounts when the host starts: jail(8) or layout, the fstab, nobody."),
]
NoMount = Annotated[bool, typer.Option("--no-mount", help="Build the trees and tables only.")]


@app.callback()
def main(
    ctx: typer.Context,
    root: Annotated[
        str | None,
        typer.Option("--root", envvar="LAYOUT_ROOT", help="ROOT; configuration is in ROOT/etc then."),
    ] = None,
    config: Annotated[
        str | None, typer.Option("--config", envvar="LAYOUT_CONFIG", help="Configuration file.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", envvar="LAYOUT_JSON", help="One JSON document on stdout.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", envvar="LAYOUT_VERBOSE", help="Say more.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", envvar="LAYOUT_QUIET", help="Results and errors only.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Global options; they may stand before or after the command."""
    if version:
        from layout import __version__

        typer.echo(f"layout {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(UsageError.exit_code)
    ctx.obj = Globals(root, config, Output(json=json, quiet=quiet, verbose=verbose))


def globals_of(ctx: typer.Context) -> Globals:
    """Return what was said before the command."""
    found = ctx.obj
    assert isinstance(found, Globals)
    return found


def need_root(found: Globals, userns: bool) -> None:
    """Be root, of the host or (asked for, or already) of a user namespace. Raises LayoutError."""
    from layout.host import privilege

    if userns and not privilege.is_root():
        privilege.enter_user_namespace()
        found.output.note("in a user namespace: files belong to you, and the mounts end with this run")
    privilege.require_root()
