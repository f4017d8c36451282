"""From what was asked to a plan: the site, its settings, its jails with their profiles and templates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from layout.actions.kinds import design_of
from layout.core import fstab
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Boot, Jail, JailPlan, Kind, Manage, Plan, Platform, Preset, Site, Tables
from layout.core.names import check_name
from layout.core.plan import plan, plan_jail
from layout.core.profile import Config, Profile, decide
from layout.core.tables import Template, expand
from layout.host import hostfiles, locks, privilege, records, shipped, site
from layout.host.beneath import Dir, open_root
from layout.host.records import BaseRecord, JailRecord


class Choice(msgspec.Struct, frozen=True):
    """What the user chose on the command line; None where nothing was said."""

    profile: str | None = None
    platform: Platform | None = None
    preset: Preset | None = None
    manage: Manage | None = None
    base: str | None = None
    boot: Boot | None = None


class Context(msgspec.Struct):
    """A site with its configuration and what was loaded for it, each file once."""

    site: Site
    config: Config
    options: tuple[str, ...] = ()
    """Global options with which another run of layout finds the same site."""
    unread: bool = False
    """Whether `described` could not read the records, so that all it told is what init would make."""
    unmade: list[str] = []
    """Names that `described` found no record of, told as init would make them."""
    problems: dict[str, LayoutError] = {}
    """Why `standing` could not plan a jail by its profile, by name."""
    _profiles: dict[str, Profile] = {}
    _templates: dict[tuple[Kind, Preset, Platform], Template] = {}

    @classmethod
    def find(cls, root: str | None, config: str | None, platform: Platform | None = None) -> Context:
        """Find the site. Raises UsageError."""
        found, settings = site.find(root, config, platform)
        # --root is a trial, whose ETC is below ROOT: a site with a ROOT of its own must not be named by it.
        options: tuple[str, ...] = ("--root", found.root) if found.trial else ()
        options += ("--config", os.path.abspath(config)) if config is not None else ()
        return cls(found, settings, options)

    def profile(self, name: str) -> Profile:
        """Return a profile. Raises UsageError."""
        if name not in self._profiles:
            self._profiles[name] = shipped.profile(self.site, name)
        return self._profiles[name]

    def template(self, jail: Jail) -> Template:
        """Return the template of a jail's mount tables. Raises LayoutError."""
        key = (jail.kind, jail.preset, jail.platform)
        if key not in self._templates:
            self._templates[key] = shipped.template(self.site, *key)
        return self._templates[key]

    def choose(self, name: str, choice: Choice) -> Jail:
        """Decide a new jail: what was chosen, else what its profile says, else the site's default."""
        profile_name = choice.profile or (name if shipped.profile_path(self.site, name) else "default")
        profile = self.profile(profile_name)
        return decide(
            name,
            profile_name,
            profile,
            choice.platform or self.site.platform,
            choice.preset or profile.preset or self.config.preset,
            choice.manage or profile.manage or self.config.manage,
            choice.boot or profile.boot or self.config.boot,
            self._source(profile, choice),
        )

    def _source(self, profile: Profile, choice: Choice) -> str:
        """Return what the world of a jail is made from; "" for a kind that has none."""
        if not design_of(profile.kind).is_world:
            return ""
        from layout.actions.populate import source_path

        platform = choice.platform or self.site.platform
        settings = profile.linux if platform is Platform.LINUX else profile.freebsd
        return source_path(choice.base or settings.full.source or self.config.base)

    def recorded(self, record: JailRecord) -> Jail:
        """Return the jail that a record describes. Raises UsageError when its profile is gone or bad."""
        profile = self.profile(record.profile)
        if profile.kind is not record.kind:
            name = record.name
            hint = f"put the profile back; or layout stop, umount and destroy {name}, then layout init"
            found = f"kind {profile.kind} in profile {record.profile}"
            raise UsageError(record.name, found, f"kind {record.kind}, which the jail was made as", hint)
        return decide(
            record.name,
            record.profile,
            profile,
            record.platform,
            record.preset,
            record.manage,
            record.boot,
            record.source,
        )

    def plan_jail(self, jail: Jail) -> JailPlan:
        """Return the plan of one jail."""
        return plan_jail(jail, self.site, self.template(jail))

    def plan(self, jails: Sequence[Jail], source: str, base: BaseRecord | None) -> Plan:
        """Return the plan of everything for these jails."""
        templates = {(jail.kind, jail.preset): self.template(jail) for jail in jails}
        has_sys = base is not None and base.sys_directory
        return plan(self.site, source, jails, templates, sys_directory=has_sys, has_base=base is not None)

    def open(self) -> Dir:
        """Open ROOT. Raises LayoutError when there is none."""
        try:
            return open_root(self.site.root)
        except FileNotFoundError:
            raise LayoutError(
                self.site.root, "no such directory", "the root of all jails", "layout init NAME makes it"
            ) from None

    def state(self, root: Dir) -> Dir:
        """Open layout's own records in ROOT. Raises LayoutError when init has not made any."""
        try:
            return root.open(".layout")
        except FileNotFoundError:
            raise LayoutError(
                self.site.root, "no jails", "some made by layout init", "layout init NAME"
            ) from None

    def jails(self, names: Iterable[str]) -> list[JailPlan]:
        """Return the plans of these jails, of all when none is named. Raises LayoutError."""
        return [self.plan_jail(self.recorded(record)) for record in self._records(names)]

    def standing(self, names: Iterable[str]) -> list[JailPlan]:
        """Return the plans of these jails, of all when none is named, for what only looks or takes away.

        Where a profile is gone, broken or of another kind by now, a jail is what its record and its written
        mount tables say, or those of its kind: it can still be stopped, unmounted and destroyed. Raises
        LayoutError.
        """
        found = []
        for record in self._records(names):
            try:
                found.append(self.plan_jail(self.recorded(record)))
            except LayoutError as problem:
                self.problems[record.name] = problem
                found.append(self._by_record(record))
        return found

    def _by_record(self, record: JailRecord) -> JailPlan:
        jail = decide(
            record.name,
            record.profile,
            Profile(record.kind, ""),
            record.platform,
            record.preset,
            record.manage,
            record.boot,
            record.source,
        )
        written = []
        for kind in ("fstab", "manage.fstab"):
            path = f"{self.site.etc}/fstab.d/{record.name}.{kind}"
            with contextlib.suppress(LayoutError):  # a damaged one says no more than none
                if (text := hostfiles.read_text(path)) is not None:
                    written.append(fstab.parse(text, record.platform, path))
        if len(written) == 2:
            return JailPlan(jail, (), Tables(*written))
        return JailPlan(jail, (), expand(self.template(jail), self.site.root, jail))

    def _records(self, names: Iterable[str]) -> list[JailRecord]:
        wanted = [check_name(name) for name in dict.fromkeys(names)]
        with self.open() as root, self.state(root) as state:
            return [self._record(state, name) for name in wanted] if wanted else records.jails(state)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only run that changes ROOT. Raises LayoutError that names who has the lock."""
        with (
            self.open() as root,
            self.state(root) as state,
            locks.held(state, locks.ROOT, "to be the only run that changes ROOT"),
        ):
            yield

    def _record(self, state: Dir, name: str) -> JailRecord:
        record = records.jail(state, name)
        if record is None:
            known = ", ".join(r.name for r in records.jails(state)) or "none yet"
            raise LayoutError(name, "no such jail", f"one of: {known}", f"layout init {name}")
        return record

    def described(self, names: Iterable[str], choice: Choice) -> list[JailPlan]:
        """Return plans of jails that exist or, for names without a record, of those init would make."""
        wanted = [check_name(name) for name in dict.fromkeys(names)]
        known: dict[str, JailRecord] = {}
        try:
            with open_root(self.site.root) as root, root.open(".layout") as state:
                known = {record.name: record for record in records.jails(state)}
        except FileNotFoundError:
            pass
        except PermissionError as error:
            if not wanted:
                raise LayoutError(
                    self.site.root, "no permission to look", "root", privilege.AS_ROOT
                ) from error
            self.unread = True
        if not wanted:
            wanted = list(known)
        if not wanted:
            raise UsageError(self.site.root, "no jails", "the name of a jail", "name one")
        self.unmade = [] if self.unread else [name for name in wanted if name not in known]
        return [self.plan_jail(self._described(name, choice, known.get(name))) for name in wanted]

    def _described(self, name: str, choice: Choice, record: JailRecord | None) -> Jail:
        """Return a jail as it would be with this choice; what is not chosen is as it was decided for it."""
        if record is None:
            return self.choose(name, choice)
        if choice == Choice():
            return self.recorded(record)
        decided = Choice(
            choice.profile or record.profile,
            choice.platform or record.platform,
            choice.preset or record.preset,
            choice.manage or record.manage,
            choice.base or record.source or None,
            choice.boot or record.boot,
        )
        return self.choose(name, decided)
