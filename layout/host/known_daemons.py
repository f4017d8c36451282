"""Daemons whose manual pages say how they stay in the foreground, who they run as, and where they listen."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """One daemon; %USER stands for the user that was found."""

    arguments: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


_DNS = ("53/tcp", "53/udp")

KNOWN: dict[str, Known] = {
    "chronyd": Known(("-d",), ("_chrony", "chronyd"), ("123/udp",)),
    "dnsmasq": Known(("-k",), ("dnsmasq", "nobody"), _DNS),
    "fingerd": Known((), ("nobody",), ("79/tcp",)),
    "kdc": Known((), (), ("88/tcp", "88/udp")),
    "krb5kdc": Known(("-n",), (), ("88/tcp", "88/udp")),
    "lighttpd": Known(("-D", "-f", "/etc/lighttpd/lighttpd.conf"), ("www-data", "www"), ("80/tcp",)),
    "memcached": Known(("-u", "%USER"), ("memcache", "memcached", "nobody"), ("11211/tcp",)),
    "named": Known(("-g", "-u", "%USER"), ("bind", "named"), _DNS),
    "nginx": Known(("-g", "daemon off;"), ("www-data", "www"), ("80/tcp",)),
    "nsd": Known(("-d",), ("nsd",), _DNS),
    "ntpd": Known(("-n", "-u", "%USER"), ("ntp", "ntpsec", "ntpd"), ("123/udp",)),
    "redis-server": Known(("--daemonize", "no"), ("redis",), ("6379/tcp",)),
    "rsyncd": Known((), (), ("873/tcp",)),
    "slapd": Known(("-d", "0", "-u", "%USER", "-g", "%USER"), ("openldap", "ldap"), ("389/tcp",)),
    "sshd": Known(("-D", "-e"), (), ("22/tcp",)),
    "tinyproxy": Known(("-d",), ("tinyproxy",), ("8888/tcp",)),
    "unbound": Known(("-d",), ("unbound",), _DNS),
}
"""By the name of the program; its manual page is the source."""
