"""What a host's own sources.list(5) says about a suite."""

from __future__ import annotations

from layout.core.aptsources import mirrors

DEB822 = """# a comment
Types: deb deb-src
URIs: http://deb.example.org/debian
Suites: bookworm bookworm-updates
# between the fields
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.example.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://deb.nodesource.com/node_20.x
Suites: nodistro
Components: main
"""


def test_deb822_gives_the_suite_and_its_corrections() -> None:
    assert mirrors({"/etc/apt/sources.list.d/debian.sources": DEB822}, "bookworm") == [
        "deb http://deb.example.org/debian bookworm main contrib",
        "deb http://deb.example.org/debian bookworm-updates main contrib",
        "deb http://deb.example.org/debian-security bookworm-security main",
    ]


def test_one_line_entries_lose_their_options() -> None:
    text = (
        "deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian trixie main # mine\n"
        "deb-src http://a.example/debian trixie main\n"
        "# deb http://b.example/debian trixie main\n"
        "deb http://docker.example/linux/debian trixie stable\n"
        "deb http://a.example/debian bookworm main\n"
        "deb cdrom:[Debian]/ trixie main\n"
        "deb\n"
    )
    assert mirrors({"sources.list": text}, "trixie") == ["deb http://a.example/debian trixie main"]


def test_a_suite_that_the_host_does_not_use_has_none() -> None:
    assert mirrors({"debian.sources": DEB822}, "sid") == []


def test_the_same_archive_counts_once() -> None:
    line = "deb http://a.example/debian sid main\n"
    assert len(mirrors({"a.list": line, "b.list": line}, "sid")) == 1
