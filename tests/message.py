"""The fstab of the message of 10 February 2010 (Mamalakis, freebsd-doc), in no order of its lines."""

from __future__ import annotations

JAILS = """\
/jails/j/mroot /jails/j/bind nullfs ro 0 0
/jails/j/mroot /jails/j/heimdal nullfs ro 0 0
/jails/j/mroot /jails/j/ldap nullfs ro 0 0
/jails/s/ldap /jails/j/ldap/s nullfs ro 0 0
/jails/s/bind /jails/j/bind/s nullfs ro 0 0
/jails/s/heimdal /jails/j/heimdal/s nullfs ro 0 0
/jails/t/heimdal /jails/j/heimdal/t nullfs rw 0 0
/jails/t/bind /jails/j/bind/t nullfs rw 0 0
/jails/t/ldap /jails/j/ldap/t nullfs rw 0 0
""".splitlines()
MANAGE = """\
/jails/j/mroot /jails/manage/bind nullfs rw 0 0
/jails/j/mroot /jails/manage/heimdal nullfs rw 0 0
/jails/j/mroot /jails/manage/ldap nullfs rw 0 0
/jails/s/ldap /jails/manage/ldap/s nullfs rw 0 0
/jails/s/bind /jails/manage/bind/s nullfs rw 0 0
/jails/s/heimdal /jails/manage/heimdal/s nullfs rw 0 0
/jails/t/heimdal /jails/manage/heimdal/t nullfs rw 0 0
/jails/t/bind /jails/manage/bind/t nullfs rw 0 0
/jails/t/ldap /jails/manage/ldap/t nullfs rw 0 0
devfs /jails/manage/heimdal/dev devfs rw 0 0
devfs /jails/manage/bind/dev devfs rw 0 0
devfs /jails/manage/ldap/dev devfs rw 0 0
""".splitlines()
