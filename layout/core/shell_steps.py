"""The sh functions that make entries below ROOT: directories, links, files, copies, tables, records."""

from __future__ import annotations

COMMON = r"""
# die PATH FOUND EXPECTED: say what is so and what was expected, and stop
die() {
    printf 'layout: %s: found %s, expected %s\n' "$1" "$2" "$3" >&2
    exit 1
}

# present PATH: something has this name, if only a link that leads nowhere
present() { [ -e "$1" ] || [ -L "$1" ]; }

# conflict PATH SHOWN EXPECTED: stop because of what is at PATH
conflict() {
    if [ -L "$1" ]; then
        die "$2" "a symbolic link to $(readlink "$1")" "$3"
    elif [ -d "$1" ]; then
        die "$2" 'a directory' "$3"
    elif [ -f "$1" ]; then
        die "$2" 'a file' "$3"
    elif [ -e "$1" ]; then
        die "$2" 'a special file' "$3"
    fi
    die "$2" nothing "$3"
}

# is_real PATH: it and all directories above it, from here on, are directories and no links
is_real() (
    at=.
    rest=$1/
    while [ -n "$rest" ]; do
        at=$at/${rest%%/*}
        rest=${rest#*/}
        if [ -L "$at" ] || [ ! -d "$at" ]; then exit 1; fi
    done
)

# check_closed DIRECTORY: nobody but root can replace what is in it
check_closed() {
    if [ -L "$1" ] || [ ! -d "$1" ]; then conflict "$1" "$1" 'a real directory'; fi
    read -r mode _ owner _ <<STATUS
$(ls -ldn "$1")
STATUS
    if [ "$owner" = 65534 ] && [ -r /proc/self/uid_map ]; then
        # In a user namespace, everything of the real root belongs to the overflow user.
        read -r _ _ mapped _ </proc/self/uid_map
        if [ "$mapped" != 4294967295 ]; then owner=0; fi
    fi
    [ "$owner" = 0 ] || die "$1" "a directory of user $owner" 'one that belongs to root'
    case $mode in
        ?????w* | ????????w*)
            case $1:$mode in
                "$root":* | *:?????????[!tT]*)
                    die "$1" "mode $mode" 'a directory that only root can write to'
                    ;;
            esac
            ;;
    esac
}

# check_parents: ROOT and all directories above it are closed
check_parents() {
    at=
    rest=$root/
    while [ -n "$rest" ]; do
        at=$at${rest%%/*}
        rest=${rest#*/}
        present "${at:-/}" || return 0
        check_closed "${at:-/}"
        at=$at/
    done
}

# make_root MODE: make ROOT, unless it is there and as planned
make_root() {
    if ! present "$root"; then mkdir -m "$1" "$root"; fi
    [ -n "$(find "$root" -prune -perm "$1" -user 0)" ] ||
        die "$root" 'another mode or owner' "mode $1, root"
}

# take_lock: be the only run that changes ROOT; init and this script exclude each other by flock(2)
take_lock() {
    if command -v flock >/dev/null 2>&1; then
        (umask 077 && : >>.layout/lock)
        exec 9<.layout/lock
        flock -n 9 || die "$root/.layout/lock" 'a lock held by another run' 'to be the only one'
    fi
}

# step NAME: go into a directory, and see that no link led somewhere else; $here is where we are
step() {
    here=$here/$1
    if [ -L "./$1" ] || [ ! -d "./$1" ]; then conflict "./$1" "$here" 'a directory'; fi
    cd -P "./$1"
    [ "$(pwd -P && echo .)" = "$here
." ] || die "$here" 'a directory that was moved' 'one at rest'
}

# walk FROM PATH: go from FROM to PATH below it one step at a time, and make what is missing
walk() {
    here=$1
    cd -P "${1:-/}"
    rest=$2/
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        rest=${rest#*/}
        if ! present "./$part"; then mkdir -m 755 "./$part"; fi
        step "$part"
    done
}

# above PATH: go to the directory that PATH lies in
above() {
    here=$root
    case $1 in */*) walk "$root" "${1%/*}" ;; esac
}

# id_of JAIL DATABASE NAME: print the id by the jail's own passwd(5) or group(5), root's where it has none
id_of() {
    file=s/$1/etc/$2
    if [ "$3" = root ] || [ -L "$file" ] || [ ! -f "$file" ]; then
        echo 0
        return
    fi
    # The last id is that of chown(2) for "leave it as it is".
    awk -F: -v name="$3" '$1 == name && $3 ~ /^[0-9]+$/ && length($3) <= 10 { id = $3 }
        END { print (id == "" || id + 0 >= 4294967295) ? 0 : id }' "$file"
}

# make_directory MODE PATH: make it, unless it is there and as planned
make_directory() (
    above "$2"
    name=${2##*/}
    if present "./$name"; then
        if [ -L "./$name" ] || [ ! -d "./$name" ]; then conflict "./$name" "$root/$2" 'a directory'; fi
        [ -n "$(find "./$name" -prune -perm "$1" -user 0)" ] ||
            die "$root/$2" 'another mode or owner' "mode $1, root"
        exit 0
    fi
    mkdir -m 700 "./$name"
    step "$name"
    chmod "$1" .
)

# make_state MODE PATH OWNER GROUP JAIL: make a directory that is the jail's own from then on
make_state() (
    ids=$(id_of "$5" passwd "$3"):$(id_of "$5" group "$4")
    above "$2"
    name=${2##*/}
    if present "./$name"; then
        if [ -L "./$name" ] || [ ! -d "./$name" ]; then conflict "./$name" "$root/$2" 'a directory'; fi
        exit 0
    fi
    mkdir -m 700 "./$name"
    # By its descriptor, so to say: the name may lead elsewhere a moment later.
    step "$name"
    chown "$ids" .
    chmod "$1" .
)

# reset_mode MODE PATH: give a directory back its mode, and root as its owner
reset_mode() (
    if [ "$2" != . ]; then walk "$root" "$2"; fi
    chown 0:0 .
    chmod "$1" .
)

# make_link TARGET PATH: make it, unless it is there
make_link() (
    above "$2"
    name=${2##*/}
    if present "./$name"; then
        if [ ! -L "./$name" ] || [ "$(readlink "./$name" && echo .)" != "$1
." ]; then
            conflict "./$name" "$root/$2" "a symbolic link to $1"
        fi
        exit 0
    fi
    ln -s -- "$1" "./$name"
)

# A file is written under a name that layout init knows and removes, should this be interrupted.
# make_file MODE PATH: write standard input to it, whole; what is there already is the administrator's
make_file() (
    above "$2"
    name=${2##*/}
    if present "./$name"; then
        if [ ! -f "./$name" ] && [ ! -L "./$name" ]; then conflict "./$name" "$root/$2" 'a file'; fi
        exit 0
    fi
    rm -f "./.$name.000000000000"
    cat >"./.$name.000000000000"
    chmod "$1" "./.$name.000000000000"
    mv "./.$name.000000000000" "./$name"
)

# make_identity PATH: write 32 random hexadecimal digits to it
make_identity() {
    id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    [ "${#id}" = 32 ] || die /dev/urandom "$id" '16 random bytes'
    printf '%s\n' "$id" | make_file 0444 "$1"
}

# wanting PATH: there is no such tree yet
wanting() {
    if [ -d "$1" ] && [ ! -L "$1" ]; then return 1; fi
    if present "$1"; then conflict "$1" "$root/$1" 'a directory'; fi
}

# give_name STAGED PATH: give a tree its final name
give_name() {
    sync
    (
        above "$2"
        if present "./${2##*/}"; then conflict "./${2##*/}" "$root/$2" nothing; fi
        mv "$root/$1" "./${2##*/}"
    )
    staging=
}

# write_whole MODE PATH: write standard input to an absolute path; descriptor 3 has what may be replaced
write_whole() (
    path=${2#/}
    walk '' "${path%/*}"
    name=${2##*/}
    rm -f "./.$name.000000000000"
    cat >"./.$name.000000000000"
    if present "./$name"; then
        if [ -L "./$name" ] || [ ! -f "./$name" ]; then
            rm -f "./.$name.000000000000"
            conflict "./$name" "$2" 'a regular file'
        fi
        if cmp -s "./.$name.000000000000" "./$name"; then
            rm -f "./.$name.000000000000"
            exit 0
        fi
        if ! cmp -s - "./$name" <&3; then
            rm -f "./.$name.000000000000"
            die "$2" 'another text' 'what was there when this script was made'
        fi
        # Over a copy of the old file, whose mode the new one keeps.
        cp -p "./$name" "./.$name.000000000001"
        cat "./.$name.000000000000" >"./.$name.000000000001"
        mv "./.$name.000000000001" "./.$name.000000000000"
    else
        chmod "$1" "./.$name.000000000000"
    fi
    mv "./.$name.000000000000" "./$name"
)

# write_record NAME: write a jail's record; one that is there may differ in its date only
write_record() {
    path=.layout/jails/$1.toml
    text=$(cat)
    if present "$path"; then
        [ "$(grep -v '^created = ' "$path")" = "$(printf '%s\n' "$text" | grep -v '^created = ')" ] ||
            die "$root/$path" 'another record' 'none, or the same'
        return 0
    fi
    printf '%s\n' "$text" | sed "s/^created = .*/created = \"$created\"/" | make_file 0600 "$path"
}
"""

ENDED = r"""
# ended STATUS: on the way out, remove what is not complete: only what this script staged itself
ended() {
    trap - EXIT
    @end_mounts@
    case $staging in
        '') ;;
        base) unstage ;;
        *) discard "$staging" ;;
    esac
    exit "$1"
}
"""

COPY_LINUX = r"""
# discard PATH: remove a staged tree; a mount in it stops us
discard() {
    present "$1" || return 0
    [ "$(mounts_below "$live/$1")" = 0 ] || die "$root/$1" 'a mount in it' 'none in a staged tree'
    rm -rf "$1"
}

# copy_tree ORIGIN STAGED: begin a tree as a copy, with owners, modes, times, links and extended attributes
copy_tree() {
    discard "$2"
    staging=$2
    cp -a "$1" "$2"
}
"""

COPY_FREEBSD = r"""
# discard PATH: remove a staged tree; flags such as schg would keep it
discard() {
    present "$1" || return 0
    if command -v chflags >/dev/null 2>&1; then chflags -R noschg "$1"; fi
    rm -rf "$1"
}

# copy_tree ORIGIN STAGED: begin a tree as a copy, with owners, modes, times, links and flags
copy_tree() {
    discard "$2"
    staging=$2
    mkdir -m 700 "$2"
    pour "$1" "$2"
}

# pour FROM TO: copy what is in FROM, hard links and flags included, which cp(1) does not keep
pour() {
    rm -f .layout/.failed.000000000000
    { tar -cf - --format=pax --numeric-owner -C "$1" . || : >.layout/.failed.000000000000; } |
        tar -xpf - --numeric-owner -C "$2"
    if present .layout/.failed.000000000000; then
        rm -f .layout/.failed.000000000000
        die "$1" 'a tree that could not be read' 'to copy it'
    fi
}
"""
