"""Which packages a status file of dpkg says are installed."""

from __future__ import annotations

from layout.core.dpkg import installed

STATUS = """Package: bind9
Status: install ok installed
Architecture: amd64
Provides: dns-server (= 1.0), old-bind:any
Description: name server
 Package: not-a-field

Package: slapd
Status: deinstall ok config-files

Package: broken
Status: install ok half-configured

Package: held
Status: hold ok installed
"""


def test_only_what_is_installed_counts_with_what_it_provides() -> None:
    assert installed(STATUS) == {"bind9", "dns-server", "old-bind", "held"}


def test_an_empty_file_has_none() -> None:
    assert installed("") == set()
