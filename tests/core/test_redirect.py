"""Redirects: what a profile may ask for, and what becomes of it for pf, ipnat and nft."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from layout.core import nftables, packetfilter
from layout.core.errors import LayoutError, UsageError
from layout.core.model import Jail, JailPlan, Manage, Platform, Preset, Site, Tables
from layout.core.redirect import Redirect, Route, check_redirects, routes
from layout.core.service import Network, Settings
from layout.core.tables import hand_edited

SITE = Site("/jails", "/usr/local/etc/layout", Platform.FREEBSD, "/etc/fstab")
SSH = Redirect(port=2222, to=22)
NETWORK = Network(ip4=("10.79.0.2/30",), ip6=("disable",), external="em0")


def settings(*redirects: Redirect, **network: Any) -> Settings:
    return Settings(redirect=redirects, network=structs.replace(NETWORK, **network))


def plan(*redirects: Redirect, **network: Any) -> JailPlan:
    jail = Jail(
        "cell",
        "full",
        Preset.HARDENED,
        Manage.SESSION,
        Platform.LINUX,
        settings=settings(*redirects, **network),
    )
    return JailPlan(jail, (), Tables((), ()))


# --- what a profile may say --------------------------------------------------------------------------------


def test_a_redirect_leads_to_the_jails_address_of_its_version() -> None:
    both = settings(
        SSH,
        Redirect(port=53, proto="udp", address="2001:db8::1"),
        ip6=("fd00:79::2/64",),
    )
    assert routes(both) == (
        Route("tcp", "", 2222, "10.79.0.2", 22),
        Route("udp", "2001:db8::1", 53, "fd00:79::2", 53),
    )
    assert [str(route) for route in routes(both)] == [
        "*:2222/tcp -> 10.79.0.2:22",
        "[2001:db8::1]:53/udp -> [fd00:79::2]:53",
    ]


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        (settings(Redirect(port=0)), "redirect.port"),
        (settings(Redirect(port=22, to=65536)), "redirect.to"),
        (settings(Redirect(port=22, address="em0")), "redirect.address"),
        (settings(Redirect(port=22, address="0.0.0.0")), "redirect.address"),
        (settings(SSH, SSH), "redirect"),
        (settings(SSH, structs.replace(SSH, address="192.0.2.1")), "redirect"),
        (settings(SSH, ip4=("inherit",)), "redirect"),
        (settings(Redirect(port=22, address="2001:db8::1")), "redirect of port 22"),
        (settings(nat=True, ip4=("disable",)), "network.nat"),
        (settings(apply=True), "network.apply"),
        (settings(gateway=("10.79.0.9",)), "network.gateway"),
        (settings(gateway=("10.79.0.2",)), "network.gateway"),
        (settings(gateway=("10.79.0.1", "10.79.0.3")), "network.gateway"),
        (settings(gateway=("10.79.0.1",), ip6=("fd00:79::2/64",)), "network.gateway"),
        (settings(gateway=("10.79.0.1",), interface="lo"), "network.interface"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_its_key(bad: Settings, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_redirects(bad, "x: linux")
    assert key in caught.value.path


def test_a_sensible_network_is_taken() -> None:
    check_redirects(settings(SSH, gateway=("10.79.0.1",), nat=True, apply=True), "x: linux")
    two = structs.replace(SSH, address="192.0.2.1"), structs.replace(SSH, address="192.0.2.2")
    check_redirects(settings(*two, structs.replace(SSH, proto="udp")), "x: linux")


def test_a_profile_file_has_these_keys(cli, tmp_path: Path) -> None:
    text = (
        'kind = "shared"\ndescription = "x"\n[freebsd.network]\nip4 = ["10.0.0.2/32"]\nexternal = "em0"\n'
        "[[freebsd.redirect]]\nport = 2222\nto = 22\n"
    )
    (tmp_path / "x.toml").write_text(text)
    assert cli("profile", "check", tmp_path / "x.toml").code == 0
    (tmp_path / "x.toml").write_text(text.replace("to = 22", "too = 22"))
    done = cli("profile", "check", tmp_path / "x.toml")
    assert done.code == 2
    assert "did you mean 'to'?" in done.err


# --- pf and ipnat ------------------------------------------------------------------------------------------


def test_the_anchor_translates_first_and_names_what_the_host_needs() -> None:
    text = packetfilter.render_pf(plan(SSH, Redirect(port=80, address="192.0.2.1"), nat=True), SITE)
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert rules == [
        "nat on em0 inet from 10.79.0.2 to any -> (em0)",
        "rdr pass on em0 inet proto tcp from any to (em0) port 2222 -> 10.79.0.2 port 22",
        "rdr pass on em0 inet proto tcp from any to 192.0.2.1 port 80 -> 10.79.0.2 port 80",
    ]
    assert not hand_edited(text)
    assert hand_edited(text.replace("port 80", "port 81"))
    assert '#     load anchor "layout/cell" from "/usr/local/etc/layout/pf/cell.conf"' in text
    points = packetfilter.attachment(SITE, [])
    assert points.splitlines() == ['nat-anchor "layout/*"', 'rdr-anchor "layout/*"', 'anchor "layout/*"']


def test_without_nat_no_rule_lets_the_jail_out() -> None:
    assert "nat on" not in packetfilter.render_pf(plan(SSH), SITE)
    assert "map" not in packetfilter.render_ipnat(plan(structs.replace(SSH, address="192.0.2.1")))


def test_ipnat_gets_the_lines_of_ipnat_5() -> None:
    text = packetfilter.render_ipnat(plan(Redirect(port=21, address="192.0.2.1"), nat=True))
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        "map em0 10.79.0.2/32 -> 0.0.0.0/32 portmap tcp/udp 10000:65000",
        "map em0 10.79.0.2/32 -> 0.0.0.0/32",
        "rdr em0 192.0.2.1/32 port 21 -> 10.79.0.2 port 21 tcp",
    ]


def test_what_a_filter_cannot_say_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no address of the host"):
        packetfilter.render_ipnat(plan(SSH))
    with pytest.raises(UsageError, match=r"network\.external"):
        packetfilter.render_pf(plan(nat=True, external=""), SITE)
    six = Redirect(port=53, address="2001:db8::1")
    assert "inet6 proto tcp" in packetfilter.render_pf(plan(six, ip6=("fd00::2/64",)), SITE)
    with pytest.raises(UsageError, match=r"IPv6"):
        packetfilter.render_ipnat(plan(six, ip6=("fd00::2/64",)))


# --- nft ---------------------------------------------------------------------------------------------------

FULL = plan(
    SSH,
    Redirect(port=53, proto="udp", address="192.0.2.1"),
    Redirect(port=53, address="2001:db8::1"),
    ip6=("fd00:79::2/64",),
    nat=True,
).jail
LINK = nftables.link_name(SITE, "cell")


def test_a_link_has_a_name_that_an_interface_can_have() -> None:
    assert LINK == "ly-cell"
    long = [nftables.link_name(SITE, f"{'a' * 20}{end}") for end in "bc"]
    assert len(set(long)) == 2
    assert all(len(name) <= 15 for name in long)
    trial = structs.replace(SITE, root="/tmp/x", trial=True)
    other = structs.replace(SITE, root="/tmp/y", trial=True)
    assert nftables.link_name(trial, "cell") != nftables.link_name(other, "cell")


def test_a_jail_without_nat_begins_nothing() -> None:
    rules = nftables.ruleset(plan(SSH).jail, LINK)
    assert rules["postrouting"] == ()
    verdicts = [(rule[0].text, rule[-1].text) for rule in rules["forward"] if len(rule) == 2]
    assert verdicts == [(f'oifname "{LINK}"', "drop"), (f'iifname "{LINK}"', "drop")]
    # and to the host it begins nothing in any case
    assert nftables.ruleset(FULL, LINK)["input"][-1][-1].text == "drop"


def _nft(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a network namespace of its own, where nft can do no harm."""
    if shutil.which("nft") is None:
        pytest.skip("no nft")
    probe = subprocess.run(["unshare", "-rn", "nft", "list", "tables"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"nft in a namespace of its own: {probe.stderr.strip()}")
    return subprocess.run(["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, timeout=120)


def test_nft_takes_the_text_twice_and_says_what_is_planned(tmp_path: Path) -> None:
    file = tmp_path / "cell.nft"
    file.write_text(nftables.render(FULL, LINK))
    done = _nft(f"nft -c -f {file} && nft -f {file} && nft -f {file} && nft -j list table inet layout-cell")
    assert (done.returncode, done.stderr) == (0, "")
    listed = nftables.parse(done.stdout, "layout-cell")
    assert sum(len(rules) for rules in listed.rules.values()) == 17
    assert nftables.differences(FULL, LINK, listed) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nft add rule inet layout-cell forward accept", "none that is not planned"),
        ("nft insert rule inet layout-cell forward accept", "none that is not planned"),
        ("nft flush chain inet layout-cell input", 'iifname "ly-cell" drop'),
        ("nft delete chain inet layout-cell output", "a chain ('output', 'nat', 'output', -100)"),
        ("nft add chain inet layout-cell more", "none that is not planned"),
    ],
)
def test_a_changed_table_is_told_from_the_planned_one(tmp_path: Path, change: str, said: str) -> None:
    file = tmp_path / "cell.nft"
    file.write_text(nftables.render(FULL, LINK))
    if "delete chain" in change:
        change = f"nft flush chain inet layout-cell output && {change}"
    done = _nft(f"nft -f {file} && {change} && nft -j list table inet layout-cell")
    assert (done.returncode, done.stderr) == (0, "")
    found = nftables.differences(FULL, LINK, nftables.parse(done.stdout, "layout-cell"))
    assert any(said in expected for _, _, expected in found), found


def test_nft_refuses_a_text_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "cell.nft"
    file.write_text(nftables.render(FULL, LINK).replace("dnat ip to", "dnat ipx to"))
    assert _nft(f"nft -c -f {file}").returncode != 0


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"nftables": [{"rule": {}}]})])
def test_a_reply_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(LayoutError, match="libnftables-json"):
        nftables.parse(text, "layout-cell")
