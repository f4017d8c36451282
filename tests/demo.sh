#!/bin/sh
# demo: the main job from end to end, in a throw-away root: three jails, their read-only roots, a writable chroot for
# each, the proof, one sabotage that is found, and the teardown. Nothing outside of that root is touched, and nothing is
# downloaded: the base is made of this host's own programs.
#
# Every step says what it expects; the first that turns out otherwise ends the demo with exit status 1.
set -u
cd "$(dirname "$0")/.." || exit 1

if [ "${LAYOUT_BOX:-}" != 1 ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "You are not root, so everything happens inside a user namespace: files belong to you there, and what"
        echo "belongs to other users in a real jail belongs to root. On a host of your own, run layout as root."
        echo
    fi
    exec tests/box sh tests/demo.sh
fi

ROOT=/tmp/jails
export LAYOUT_ROOT="$ROOT"
started=$(date +%s)

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi

say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}
# run EXPECTED CMD...: show a command, run it, and insist on its exit status
run() {
    expected=$1
    shift
    printf '$ %s\n' "$*"
    "$@"
    status=$?
    [ "$status" = "$expected" ] || fail "exit status $status, expected $expected: $*"
}
# in_jail NAME SCRIPT: run a script as root inside the read-only root of a jail
in_jail() {
    name=$1
    shift
    chroot "$ROOT/j/$name" /bin/sh -c "$@"
}

say "Three jails from one base. The base is made of this host's own programs."
run 0 layout init ldap bind heimdal

say "Again: nothing is left to do."
run 0 layout init ldap bind heimdal

say "What there is now. ro and rw are what the jail, and its administrator, can do."
run 0 layout show bind

say "Root inside each jail tries to write everywhere. Only /var and /tmp let it."
for name in ldap bind heimdal; do
    printf '%s:' "$name"
    for place in / /bin /sbin /lib /etc /root /usr /usr/bin /usr/local /usr/local/bin /srv /opt /s /s/etc /dev; do
        answer=$(in_jail "$name" "LC_ALL=C touch ${place%/}/.demo 2>&1")
        case $answer in
            *'Read-only file system'*) ;;
            *) fail "$name: $place: found '${answer:-a write that worked}', expected Read-only file system" ;;
        esac
    done
    printf ' 15 places are read-only (EROFS);'
    for place in /var /tmp; do
        in_jail "$name" "touch $place/.demo && rm $place/.demo" || fail "$name: $place: cannot be written"
    done
    printf ' /var and /tmp can be written,'
    in_jail "$name" "cp /bin/true /tmp/.demo" || fail "$name: /tmp: cannot be written"
    if in_jail "$name" "/tmp/.demo" 2>/dev/null; then fail "$name: a program in /tmp was executed"; fi
    in_jail "$name" "rm /tmp/.demo"
    printf ' and nothing there can be executed.\n'
done

say "To change a jail, its administrator enters the writable view. The change is in the jail at once."
run 0 layout manage bind -- cp /bin/true /usr/local/bin/newtool
# Shown as it is typed, with its quotes.
echo "$ echo 'zone example.test' | layout manage bind -- tee /etc/zones"
echo 'zone example.test' | layout manage bind -- tee /etc/zones || fail "no /etc/zones"
run 0 cat "$ROOT/j/bind/etc/zones"
run 0 in_jail bind 'test -x /usr/local/bin/newtool && echo "the jail has /usr/local/bin/newtool"'

say "The proof, for every jail."
run 0 layout verify

say "Somebody remounts the read-only half of one jail writable. verify finds it."
run 0 mount -o remount,bind,rw "$ROOT/j/heimdal/s"
run 1 layout verify
say "Mounted anew, it is as promised again."
run 0 layout umount heimdal
run 0 layout mount heimdal
run 0 layout verify --quick

say "The same layout on FreeBSD, in the words of the message of 2010 that it comes from."
printf '$ layout fstab ldap --platform freebsd --preset classic --manage boot\n'
env -u LAYOUT_ROOT layout fstab ldap --platform freebsd --preset classic --manage boot || fail "no table"

say "Teardown. Nothing is left mounted."
run 0 layout umount
for name in ldap bind heimdal; do run 0 layout destroy "$name"; done
left=$(grep -c " $ROOT" /proc/self/mountinfo)
[ "$left" = 0 ] || fail "$left mounts are left"
printf '\n%sDone in %s seconds: 0 mounts left, and nothing outside of the throw-away root was touched.%s\n' \
    "$bold" "$(($(date +%s) - started))" "$plain"
