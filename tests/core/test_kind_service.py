"""Kind service: which words go together, what they turn into, and what a drop-in may say."""

from __future__ import annotations

import pytest

from layout.core import jailconf
from layout.core.errors import UsageError
from layout.core.kinds import dropin, service
from layout.core.model import Jail, JailPlan, Kind, Manage, Platform, Preset, Tables
from layout.core.release import Release
from layout.core.service import Confine, Service, Settings


def checked(*words: str, platform: Platform = Platform.FREEBSD, **confine: tuple[str, ...]) -> None:
    service.check(Settings(confine=Confine(words, **confine)), platform, "svc.toml: freebsd")


def jail(*words: str, name: str = "named", **more: str) -> Jail:
    settings = Settings(service=Service(**more), confine=Confine(words))  # type: ignore[arg-type]
    return Jail(
        name, "svc", Preset.HARDENED, Manage.SESSION, Platform.FREEBSD, kind=Kind.SERVICE, settings=settings
    )


# --- words ----

FACTS = {
    "mlock": {"allow.mlock": "true"},
    "netv4": {"ip4": "inherit", "allow.reserved_ports": "true"},
    "netv6": {"ip6": "inherit", "allow.reserved_ports": "true"},
    "net_basic": {"ip4": "inherit", "ip6": "inherit", "allow.reserved_ports": "true"},
    "net_raw": {"allow.raw_sockets": "true"},
    "net_all": {
        "allow.socket_af": "true",
        "allow.raw_sockets": "true",
        "allow.reserved_ports": "true",
        "ip4": "inherit",
        "ip6": "inherit",
    },
    "nfsd": {"allow.nfsd": "true", "enforce_statfs": "1"},
    "sysvipc": {"sysvmsg": "inherit", "sysvsem": "inherit", "sysvshm": "inherit"},
    "sysvipcnew": {"sysvmsg": "new", "sysvsem": "new", "sysvshm": "new"},
    "vmm": {"allow.vmm": "true"},
    "routing": {"allow.routing": "true"},
    "settime": {"allow.settime": "true", "allow.adjtime": "true"},
}


def test_every_word_turns_into_its_parameters() -> None:
    assert set(FACTS) == set(service.WORDS)
    for word, wanted in FACTS.items():
        checked(word)
        assert service.parameters(Confine((word,))) == wanted, word


def test_addresses_make_new_of_inherit() -> None:
    both = Confine(("net_basic", "mlock"), ("192.0.2.10", "2001:db8::1", "192.0.2.11"))
    assert service.parameters(both) == {
        "ip4": "new",
        "ip6": "new",
        "allow.reserved_ports": "true",
        "allow.mlock": "true",
        "ip4.addr": "192.0.2.10,192.0.2.11",
        "ip6.addr": "2001:db8::1",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net_bsic",), "did you mean 'net_basic'?"),
        (("jail",), "unknown word 'jail'"),
        (("mlock", "mlock"), "twice"),
        (("netv4", "netv6"), "take 'net_basic'"),
        (("net_basic", "netv4"), "which it has in it"),
        (("net_all", "net_basic"), "which it has in it"),
        (("net_raw", "net_all"), "which it has in it"),
        (("sysvipc", "net_basic", "sysvipcnew"), "'sysvipc' and 'sysvipcnew'"),
    ],
)
def test_words_that_do_not_go_together(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as error:
        checked(*words)
    assert said in f"{error.value} {error.value.hint}"
    assert error.value.path.endswith("confine.options")


def test_addresses_need_a_network_of_their_family() -> None:
    checked("netv4", ipaddrs=("192.0.2.1",))
    for words, addresses, said in (
        (("mlock",), ("192.0.2.1",), "without a network"),
        (("netv4",), ("2001:db8::1",), "IPv6 address beside 'netv4'"),
        (("netv6",), ("192.0.2.1",), "IPv4 address beside 'netv6'"),
        (("net_basic",), ("192.0.2.1/24",), "address of the host"),
    ):
        with pytest.raises(UsageError, match=said):
            checked(*words, ipaddrs=addresses)
    with pytest.raises(UsageError, match="binds no service"):
        try:
            checked("netv4", platform=Platform.LINUX, ipaddrs=("192.0.2.1",))
        except UsageError as error:
            raise UsageError("", error.expected, "", "") from error


def test_what_another_kind_says_is_refused() -> None:
    for settings in (
        Settings(service=Service(command=("/usr/sbin/named",))),
        Settings(service=Service(rc_name="a-b")),
        Settings(service=Service(unit="named")),
        Settings(confine=Confine(writable=("/etc/x",))),
    ):
        with pytest.raises(UsageError):
            service.check(settings, Platform.FREEBSD, "x")
    service.check(Settings(service=Service(rc_name="a_b", unit="a-b@1.service")), Platform.FREEBSD, "x")
    service.check(Settings(confine=Confine(writable=("/etc/x",))), Platform.LINUX, "x")
    for path in ("etc", "/etc/../x", "/", "/a\nb"):
        with pytest.raises(UsageError):
            service.check(Settings(confine=Confine(writable=(path,))), Platform.LINUX, "x")


def test_a_word_that_this_release_does_not_know_is_refused() -> None:
    for word in service.WORDS:
        service.check_release(Confine((word,)), Release(15, 1), "x")
    for word in ("routing", "settime"):
        with pytest.raises(UsageError, match=r"on FreeBSD 15\.0") as error:
            service.check_release(Confine((word,)), Release(15, 0), "x")
        assert "only warn" in error.value.hint
    text = "\tcase $o in\n\tmlock)\n\t\t;;\n\tnet_basic)\n"
    assert service.unknown_words(Confine(("net_basic", "vmm")), text) == ["vmm"]
    assert service.has_service_jails("x _svcj y")
    assert not service.has_service_jails(text)


# --- rc.conf and rc.d ----


def test_the_variables_of_rc_conf() -> None:
    assert service.variables(jail("net_basic", "mlock")) == {
        "named_svcj": "YES",
        "named_svcj_options": "net_basic mlock",
    }
    assert service.variables(jail(name="web-1", rc_name="nginx")) == {
        "nginx_svcj": "YES",
        "nginx_svcj_options": " ",
    }, "an empty value would let the default of the script win"
    with pytest.raises(UsageError, match="rc\\.subr"):
        service.variables(jail(name="web-1"))


def test_the_lines_for_rc_conf_name_no_jail_of_jail_8() -> None:
    plan = JailPlan(jail("net_basic"), (), Tables((), ()))
    assert jailconf.rc_conf([plan]) == 'named_svcj="YES"\nnamed_svcj_options="net_basic"\n'
    assert jailconf.assignments([plan], {"jail_list": "a"}) == {}


def test_what_this_design_does_not_give_is_always_said() -> None:
    for words in ((), ("net_basic",), ("net_raw",)):
        assert service.remarks(Confine(words), Platform.FREEBSD)[-1] == service.NOT_GIVEN
    assert "no network at all" in service.remarks(Confine(("mlock",)), Platform.FREEBSD)[0]
    assert len(service.remarks(Confine(("netv6",)), Platform.FREEBSD)) == 1
    assert service.spelled(Confine(("netv4",))) == "ip4=inherit allow.reserved_ports"
    assert "no network" in service.spelled(Confine())


def test_services_that_cannot_be_jailed() -> None:
    assert "mounts" in service.why_not("zfs", "")
    assert "kmem" in service.why_not("xdm", "")
    for pin in ('x_svcj="NO"', "x_svcj=no", ': ${x_svcj:="NO"}', "\tx_svcj=NO # mounts"):
        assert "pins" in service.why_not("x", f"name=x\n{pin}\n"), pin
    for free in ("x_svcj=YES", "xx_svcj=NO", "# x_svcj=NO", ': ${x_svcj_options:="net_basic"}'):
        assert service.why_not("x", f"name=x\n{free}\n") == "", free
    assert [service.script_name(t) for t in ('name="kdc"\n', "\tname=a_b # c\n", "rname=x\n")] == [
        "kdc",
        "a_b",
        "",
    ]


def test_a_running_jail_is_compared_with_its_options() -> None:
    confine = Confine(("netv4",), ("192.0.2.10", "192.0.2.11"))
    wanted = service.expected(confine)
    now = {**wanted, "ip4.addr": "192.0.2.11,192.0.2.10"}
    assert service.differing(wanted.items(), now) == []
    now |= {"allow.raw_sockets": "true", "ip4": "inherit"}
    del now["allow.mlock"], now["ip4.addr"]
    assert sorted(service.differing(wanted.items(), now)) == [
        ("allow.raw_sockets", "true", "false"),
        ("ip4", "inherit", "new"),
        ("ip4.addr", "nothing", "192.0.2.10,192.0.2.11"),
    ]


# --- the drop-in ----


def lines(*words: str, unit: str = "") -> list[str]:
    one = jail(*words)
    text = dropin.render(one, dropin.parse([f"[Service]\n{unit}\n"]))
    return [line for line in text.splitlines() if not line.startswith("#")]


def value(found: list[str], key: str) -> str:
    return [line.partition("=")[2] for line in found if line.startswith(f"{key}=")][-1]


def test_without_a_network_word_there_is_none() -> None:
    found = lines("mlock")
    assert "PrivateNetwork=yes" in found
    assert value(found, "RestrictAddressFamilies") == "AF_UNIX"
    assert "PrivateNetwork=yes" not in lines("netv4")
    assert value(lines("netv4"), "RestrictAddressFamilies") == "AF_UNIX AF_INET AF_NETLINK"
    assert not [line for line in lines("net_all") if line.startswith("RestrictAddressFamilies")]


def test_a_drop_in_never_widens_what_the_unit_allows() -> None:
    own = "RestrictAddressFamilies=AF_UNIX AF_INET"
    assert value(lines("net_basic", unit=own), "RestrictAddressFamilies") == "AF_UNIX AF_INET"
    denied = "RestrictAddressFamilies=~AF_INET6"
    assert "AF_INET6" not in value(lines("net_basic", unit=denied), "RestrictAddressFamilies")
    assert (
        value(lines("net_basic", unit="RestrictAddressFamilies=AF_VSOCK"), "RestrictAddressFamilies")
        == "none"
    )
    assert "ProtectSystem=full" in lines("net_basic")
    assert "ProtectSystem=full" not in lines("net_basic", unit="ProtectSystem=strict")
    for line in lines("net_all", "mlock", "settime", "vmm"):
        key, _, said = line.partition("=")
        if key in {"CapabilityBoundingSet", "SystemCallFilter"}:
            assert said.startswith("~"), "lists that allow would be joined with the unit's own"


def test_privileges_follow_the_words() -> None:
    def kept(*words: str) -> set[str]:
        taken = value(lines(*words), "CapabilityBoundingSet").lstrip("~").split()
        return {"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_TIME", "CAP_NET_ADMIN", "CAP_IPC_LOCK"} - set(
            taken
        )

    assert kept() == set()
    assert kept("net_basic") == {"CAP_NET_BIND_SERVICE"}
    assert kept("net_all", "settime", "mlock") == {
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_RAW",
        "CAP_SYS_TIME",
        "CAP_IPC_LOCK",
    }
    assert "CAP_SYS_ADMIN" in value(lines("net_all", "vmm", "routing"), "CapabilityBoundingSet")
    assert "ProtectClock=yes" not in lines("settime")
    assert "PrivateIPC=yes" in lines("sysvipcnew")
    assert "PrivateIPC=yes" not in lines("sysvipc")
    assert any("shmget" in line for line in lines("mlock"))
    assert not any("shmget" in line for line in lines("sysvipc"))
    assert "DeviceAllow=/dev/kvm rw" in lines("vmm")


def test_users_are_mapped_only_where_the_service_can_live_with_it() -> None:
    assert "PrivateUsers=yes" in lines("net_basic", unit="User=www")
    assert "PrivateUsers=yes" in lines("net_basic", unit="DynamicUser=yes")
    for unit in ("", "User=root", "User=www\nAmbientCapabilities=CAP_NET_BIND_SERVICE"):
        assert "PrivateUsers=yes" not in lines("net_basic", unit=unit)
    assert "PrivateUsers=yes" not in lines("net_raw", unit="User=www")


def test_nfsd_has_no_counterpart_in_systemd() -> None:
    with pytest.raises(UsageError, match="nfsd"):
        lines("nfsd")


def test_units_are_read_as_systemd_reads_them() -> None:
    text = "[Unit]\nUser=x\n[Service]\n# User=y\nUser = www\nExecStart=a \\\n b\n"
    text += "DeviceAllow=/dev/x\nDeviceAllow=\n"
    assert dropin.parse([text, "[Service]\nUser=web\n"]) == {"User": ["www", "web"], "ExecStart": ["a   b"]}
