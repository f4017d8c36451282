"""The sh functions that only a base for FreeBSD needs: its release, its accounts, its /var."""

from __future__ import annotations

USERLAND = r"""
# check_userland: it is a whole FreeBSD, and not newer than the running kernel
check_userland() {
    version=''
    if is_real "$base/bin" && [ -f "$base/bin/freebsd-version" ] && [ ! -L "$base/bin/freebsd-version" ]; then
        version=$(sed -n 's/^USERLAND_VERSION="\([0-9]*\.[0-9]*-[A-Z][^"]*\)"$/\1/p' \
            "$base/bin/freebsd-version")
    fi
    if [ -z "$version" ] && is_real "$base/usr/lib" &&
        [ -f "$base/usr/lib/os-release" ] && [ ! -L "$base/usr/lib/os-release" ]; then
        version=$(sed -n 's/^VERSION_ID="\{0,1\}\([0-9]*\.[0-9]*\)"\{0,1\}$/\1/p' \
            "$base/usr/lib/os-release")
    fi
    if [ ! -f "$base/etc/master.passwd" ] &&
        { [ -n "$version" ] || [ -f "$base/libexec/ld-elf.so.1" ]; }; then
        die "$source" 'no etc/master.passwd' 'a whole FreeBSD'
    fi
    if [ -z "$version" ] || [ "$(uname -s)" != FreeBSD ]; then return 0; fi
    kernel=$(uname -r)
    if printf '%s.%s\n' "${version%%-*}" "${kernel%%-*}" |
        awk -F. 'NF == 4 { newer = $1 + 0 > $3 + 0 || ($1 + 0 == $3 + 0 && $2 + 0 > $4 + 0) }
            END { exit !newer }'
    then
        die "$source" "userland $version" "none that is newer than the running kernel, $kernel"
    fi
}

# complete_var: make the directories of /var that the base itself wants and that are missing
complete_var() {
    spec=skel/.new-s/etc/mtree/BSD.var.dist
    if ! is_real "${spec%/*}" || [ -L "$spec" ] || [ ! -f "$spec" ]; then return 0; fi
    command -v mtree >/dev/null 2>&1 || die mtree 'no such program' 'it to be installed: it completes /var'
    mkdir -m 755 skel/.new-t/.var
    # It says what it makes, and 2 that something had to be made.
    # Flags come last: what is immutable cannot be moved.
    said=$(mtree -deU -R flags -f "$spec" -N skel/.new-s/etc -p skel/.new-t/.var 2>&1) || [ "$?" = 2 ] ||
        die "$spec" "$said" 'a specification that mtree understands'
    (cd skel/.new-t/.var && find . ! -name . -type d -print) | while IFS= read -r name; do
        place=skel/.new-t/var/${name#./}
        if is_real "${place%/*}" && ! present "$place"; then mv "skel/.new-t/.var/$name" "$place"; fi
    done
    if command -v chflags >/dev/null 2>&1; then
        flagged "$spec" | while read -r flags name; do
            if ! present "skel/.new-t/.var/$name" && is_real "skel/.new-t/var/$name"; then
                chflags "$flags" "skel/.new-t/var/$name"
            fi
        done
    fi
    discard skel/.new-t/.var
}

# bring_keys DIRECTORY: copy the fingerprints of a package repository to the same place of the base
bring_keys() {
    mkdir -p "$base${1%/*}"
    cp -Rp "$1" "$base${1%/*}/"
}

# flagged SPECIFICATION: print the flags and the path of each directory that is to have some
flagged() {
    awk '{ sub(/#.*/, "") }
        $1 == "" || $1 ~ /^\// { next }
        $1 == ".." { depth--; next }
        {
            part[++depth] = $1
            name = part[2]
            for (i = 3; i <= depth; i++) name = name "/" part[i]
            for (i = 2; i <= NF; i++) if ($i ~ /^flags=/ && $i != "flags=none") print substr($i, 7), name
        }' "$1"
}
"""
