"""`layout base`: where mroot comes from, what it should be, and whether it still is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from layout.cli.app import Names, app, globals_of, need_root
from layout.cli.output import Output, columns, plural

if TYPE_CHECKING:
    from layout.actions.bases import BaseSummary

bases = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build, list and verify bases.")
app.add_typer(bases, name="base")


build = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build an archive for --base.")
bases.add_typer(build, name="build")


@build.command("debian")
def build_debian(
    ctx: typer.Context,
    suite: Annotated[str, typer.Option("--suite", help="The release, by its code name.")] = "bookworm",
    packages: Annotated[str, typer.Option("--packages", help="Packages, with commas between them.")] = "",
    profiles: Annotated[
        str, typer.Option("--profiles", help="Profiles whose packages are wanted, with commas between them.")
    ] = "",
    output: Annotated[
        str | None, typer.Option("--output", help="FILE.tar.zst; in layout's cache when not given.")
    ] = None,
    mirror: Annotated[
        list[str] | None,
        typer.Option("--mirror", help="URI or line of sources.list(5); the host's own when not given."),
    ] = None,
    variant: Annotated[
        str, typer.Option("--variant", help="How small: minbase (with apt-get), apt, essential.")
    ] = "minbase",
    fresh: Annotated[bool, typer.Option("--fresh", help="Build it even if it was built before.")] = False,
) -> None:
    """Build a Debian base with mmdebstrap. The same inputs are built once."""
    from layout.actions import debian as action

    found = globals_of(ctx)
    need_root(found, userns=False)
    context = found.context()
    inputs = action.inputs_of(
        context, suite, packages.split(","), filter(None, profiles.split(",")), variant, mirror or ()
    )
    done = action.build(context, inputs, output, found.output.tell, fresh=fresh)
    if found.output.json:
        found.output.document(done)
        return
    how = "cached" if done.cached else f"built in {done.record.seconds} s"
    found.output.result(f"{done.path}  {how}, {done.record.bytes / 1e6:.1f} MB")
    found.output.note(f"layout init --base {done.path} NAME makes jails from it")


Target = Annotated[str, typer.Option("--output", help="FILE.tar.zst, which does not exist yet.")]


@build.command("archive")
def build_archive(
    ctx: typer.Context,
    archive: Annotated[
        str, typer.Argument(help="A .tar, .gz, .xz, .zst or .bz2 of a root.", show_default=False)
    ],
    output: Target,
) -> None:
    """Pack what a base takes of an archive. It is unpacked where it can do no harm, and checked."""
    _pack(ctx, archive, "archive", output)


@build.command("dir")
def build_directory(
    ctx: typer.Context,
    directory: Annotated[str, typer.Argument(help="A root file system.", show_default=False)],
    output: Target,
) -> None:
    """Pack a directory, checked as init checks it."""
    _pack(ctx, directory, "directory", output)


@build.command("host")
def build_host(ctx: typer.Context, output: Target) -> None:
    """Pack the small base made of the host's own programs."""
    _pack(ctx, "host", "host", output)


def _pack(ctx: typer.Context, source: str, kind: str, output: str) -> None:
    from layout.actions.packing import pack_source

    found = globals_of(ctx)
    need_root(found, userns=False)
    done = pack_source(found.context(), source, kind, output, found.output.tell)
    if found.output.json:
        found.output.document(done)
        return
    left_out = ", ".join(f"{count} x {kind}" for kind, count in sorted(done.left_out.items()))
    found.output.result(
        f"{done.path}  {done.entries} entries, {done.bytes / 1e6:.1f} MB"
        + (f"; left out: {left_out}" if left_out else "")
    )


@bases.command("list")
def base_list(ctx: typer.Context) -> None:
    """Print the base of ROOT, where it is from, and what the cache has."""
    from layout.actions import bases as action
    from layout.actions.debian import cached

    found = globals_of(ctx)
    context = found.context()
    base = action.base_of(context)
    archives = cached(context)
    if found.output.json:
        found.output.document({"mroot": base, "cache": archives})
        return
    _print_base(found.output, base)
    if archives:
        rows = [("ARCHIVE", "CREATED", "MB", "SUITE", "PACKAGES")]
        rows += [
            (
                path,
                record.created,
                f"{record.bytes / 1e6:.1f}",
                record.inputs.suite,
                ",".join(record.inputs.packages) or "-",
            )
            for path, record in archives.items()
        ]
        for line in columns(rows):
            found.output.result(line)


def _print_base(output: Output, base: BaseSummary | None) -> None:
    if base is None:
        output.note("no base yet: layout init NAME makes it")
        return
    record = base.record
    rows = [("BASE", "PLATFORM", "CREATED", "ENTRIES", "MB", "MANIFEST", "SOURCE")]
    rows.append(
        (
            "mroot",
            record.platform,
            record.created,
            str(record.entries),
            f"{record.bytes / 1e6:.1f}",
            "yes" if base.manifest else "no",
            record.source,
        )
    )
    for line in columns(rows):
        output.result(line)


@bases.command("verify")
def base_verify(
    ctx: typer.Context,
    update: Annotated[
        bool, typer.Option("--update", help="Accept what is there now: write the manifests anew.")
    ] = False,
) -> None:
    """Compare every file of mroot and skel with the base's manifest."""
    from layout.actions import bases as action
    from layout.cli import report

    found = globals_of(ctx)
    output = found.output
    need_root(found, userns=False)
    context = found.context()
    if not update:
        done = action.verify_base(context, output.tell)
        if output.json:
            output.document(done.report)
        else:
            report.print_report(output, done.report)
        raise typer.Exit(0 if done.report.ok else 1)
    with context.locked():
        done = action.verify_base(context, output.tell, update=True)
    accepted = [one for one in done.report.host.findings if one.severity == "error"]
    if output.json:
        output.document({"ok": True, "accepted": accepted, "written": done.written})
        return
    for finding in accepted:
        output.result(f"accepted {finding.code} {finding.path}: {finding.found}")
    output.note(f"{plural(len(done.written), 'manifest')} written")


@bases.command("merge")
def base_merge(ctx: typer.Context, names: Names = None) -> None:
    """Bring what sessions in the base changed to jails that lack it."""
    from layout.actions.manage_base import merge_base
    from layout.cli import report

    found = globals_of(ctx)
    need_root(found, userns=False)
    done = merge_base(found.context(), names, found.output.tell)
    if found.output.json:
        report.print_base_session(found.output, done)
    else:
        report.print_merges(found.output, done)
        if not done.merged and not done.pending:
            found.output.note("nothing to merge")
    raise typer.Exit(done.exit_code)
