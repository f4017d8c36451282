"""The sh functions that populate a base from a source and split it into mroot and the skeletons."""

from __future__ import annotations

BASE = r"""
# wanting_base PATH...: these trees of the base are not there yet
wanting_base() {
    if [ -e .layout/bases/mroot.toml ] && is_real j/mroot && is_real skel/s && is_real skel/t; then
        return 1
    fi
    for path in "$@"; do
        if present "$path"; then conflict "$path" "$root/$path" 'nothing, or a base with its record'; fi
    done
}

# unstage: remove what an unfinished population left
unstage() {
    discard j/.new-mroot
    discard skel/.new-s
    discard skel/.new-t
    rm -rf .layout/pkgbase
    rm -f .layout/.commit.toml.000000000000 .layout/bases/.mroot.toml.000000000000
}

# begin_base: make the three staging directories
begin_base() {
    base=j/.new-mroot
    removed='' setuid='' left_out='' relocated='' sys_directory=false
    unstage
    staging=base
    mkdir -m 755 "$base" skel/.new-s skel/.new-t
}

# tally ARGUMENT...: print how many entries find(1) finds, whatever their names hold
tally() { find "$@" -exec printf '%.0s\n' {} + | wc -l | tr -d ' '; }

# leave_out NUMBER KIND: note in the record what was not taken over
leave_out() {
    if [ "$1" != 0 ]; then left_out="$left_out$2 = $1
"; fi
}

# measure_base ITSELF KIND: take out what no base needs, then count what is there for the record
measure_base() {
    leave_out "$(tally "$base" -type p)" "$fifo"
    leave_out "$(tally "$base" -type s)" socket
    leave_out "$(tally "$base" \( -type b -o -type c \))" "$device"
    entries=$(($(tally "$base") - 1 + $1))
    find "$base" ! -type d ! -type f ! -type l -exec rm -f {} +
    # Of an archive all members count.
    if [ "$2" != archive ]; then entries=$(($(tally "$base") - 1 + $1)); fi
    bytes=$(find "$base" -type f -exec ls -lin {} + |
        awk 'NF >= 10 && $2 ~ /^-/ && !seen[$1]++ { sum += $6 } END { printf "%.0f", sum }')
    setuid=$(find "$base" -type f \( -perm -4000 -o -perm -2000 \) -print | sort |
        while IFS= read -r path; do note_setuid "$path"; done)
    # Whoever owned the top of the source: in the jail it is /.
    chown 0:0 "$base"
    chmod 755 "$base"
}

# note_setuid PATH: print a line of the record; a name that cannot stand there is found by layout verify
note_setuid() {
    name=$(printf '%s' "${1#"$base"/}" | tr -d '\001-\037\177' | sed 's/[\\"]/\\&/g')
    # shellcheck disable=SC2012 # of one entry, and of its name nothing is read
    ls -ldn "$1" | name=$name awk 'NR == 1 {
        for (i = 2; i <= 10; i++) plain = 2 * plain + (substr($1, i, 1) !~ /[-ST]/)
        if (substr($1, 4, 1) ~ /[sS]/) high += 4
        if (substr($1, 7, 1) ~ /[sS]/) high += 2
        if (substr($1, 10, 1) ~ /[tT]/) high += 1
        printf "    { path = \"%s\", mode = \"%d%03o\", uid = %d, gid = %d },\n",
            ENVIRON["name"], high, plain, $3, $4
    }'
}

# check_base: it is a root file system, and not one that was split already
check_base() {
    for name in etc var root usr; do
        if present "$base/$name" && ! is_real "$base/$name"; then
            conflict "$base/$name" "$source: $name" 'a directory'
        fi
    done
    for name in s t; do
        if present "$base/$name" && ! rmdir "$base/$name" 2>/dev/null; then
            conflict "$base/$name" "$source: /$name" "nothing: layout mounts the jail's own $name there"
        fi
    done
    if ! is_real "$base/etc"; then die "$source" 'no etc' 'a root file system with etc and bin/sh'; fi
    for name in bin usr/bin; do
        if is_real "$base/$name" && present "$base/$name/sh"; then return 0; fi
    done
    die "$source" 'no bin/sh' 'a root file system with etc and bin/sh'
}

# move_out NAME PLACE MODE: take a directory that is not shared out of the base
move_out() {
    parent=$base
    case $1 in */*) parent=$base/${1%/*} ;; esac
    if is_real "$parent"; then
        if is_real "$base/$1"; then
            mv "$base/$1" "skel/.new-$2"
            return 0
        fi
        # A link such as tmp -> var/tmp would lead back into t anyway.
        rm -f "$base/$1"
    fi
    mkdir -m 700 "skel/.new-$2"
    chmod "$3" "skel/.new-$2"
}

# scrub DIRECTORY PLACE PATTERN: remove secrets and identities, which all jails would share
scrub() {
    is_real "skel/.new-$2" || return 0
    found=$(find "skel/.new-$2/." ! -name . -prune -name "$3" -print)
    [ -n "$found" ] || return 0
    found=$(printf '%s\n' "$found" | sed 's|.*/||' | tr -d '\001-\011\013-\037\177' |
        sed "s/[\\\\\"]/\\\\&/g; s|^|    \"$1/|; s|\$|\",|" | sort)
    removed=$removed$found'
'
    find "skel/.new-$2/." ! -name . -prune -name "$3" -exec rm -rf {} +
}

# relocate PLACE NAME: move a package database into the base, where no jail can poison it
relocate() {
    is_real "skel/.new-$1" || return 0
    (walk "$root" "$base/${2%/*}")
    if present "$base/$2"; then rmdir "$base/$2"; fi
    mv "skel/.new-$1" "$base/$2"
    ln -s "/$2" "skel/.new-$1"
    relocated=yes
}

# configure PLACE: write standard input there, mode 0644, where its directory exists
configure() {
    is_real "skel/.new-${1%/*}" || return 0
    rm -f "skel/.new-$1"
    cat >"skel/.new-$1"
    chmod 644 "skel/.new-$1"
}

# resolve PATH: set $resolved to where a link leads, by its text alone; .. stops at the root
resolve() {
    resolved=
    rest=$1/
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        rest=${rest#*/}
        case $part in
            '' | .) ;;
            ..) case $resolved in */*) resolved=${resolved%/*} ;; *) resolved= ;; esac ;;
            *) resolved=${resolved:+$resolved/}$part ;;
        esac
    done
}

# climb DIRECTORY: keep the links below a directory of the skeletons working
climb() {
    for path in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        if [ -L "$path" ]; then
            keep_link "$path"
        elif [ -d "$path" ]; then
            climb "$path"
        fi
    done
}

# keep_link LINK: a relative link that climbs out of s or t leads elsewhere now. Either a link at the top of
# s or t, such as s/usr -> ../usr, makes it right for all of its kind, or it is made absolute.
keep_link() {
    target=$(readlink "$1" && echo .)
    target=${target%??}
    case /$target/ in
        //*) return 0 ;;
        */../*) ;;
        *) return 0 ;;
    esac
    place=${1#skel/.new-}
    name_of "$place"
    resolve "${name%/*}/$target"
    meant=$resolved
    resolve "${place%/*}/$target"
    found=$resolved
    place_of "$meant"
    half=${found%%/*}
    case $half in
        s | t) if [ "$found" = "$place" ]; then return 0; fi ;;
        *) if [ "$found" = "$place" ] || [ "$found" = "$meant" ]; then return 0; fi ;;
    esac
    helper=${found#"$half"}
    helper=${helper#/}
    tail=${helper#"${helper%%/*}"}
    helper=$half/${helper%%/*}
    short=${meant%"$tail"}
    case $helper in
        s/?* | t/?*)
            if ! is_split "$helper" && { [ -z "$tail" ] || [ "$short" != "$meant" ]; }; then
                if ! present "skel/.new-$helper"; then ln -s -- "../$short" "skel/.new-$helper"; fi
                if [ "$(readlink "skel/.new-$helper" && echo .)" = "../$short
." ]; then return 0; fi
            fi
            ;;
    esac
    # shellcheck disable=SC2012 # of one entry, and of its name nothing is read
    owner=$(ls -ldn "$1" | awk 'NR == 1 { print $3 ":" $4 }')
    rm -f "$1"
    ln -s "/$meant" "$1"
    chown -h "$owner" "$1"
}

# mount_point MODE NAME: a real and empty directory of the base
mount_point() {
    if is_real "$base/$2"; then
        find "$base/$2/." ! -name . -prune -exec rm -rf {} +
    else
        rm -f "$base/$2"
        mkdir -m 700 "$base/$2"
    fi
    chown 0:0 "$base/$2"
    chmod "$1" "$base/$2"
}

# shared_link TARGET NAME: a link of the base to what is not shared
shared_link() {
    case $2 in */*) (walk "$root" "$base/${2%/*}") ;; esac
    rm -rf "${base:?}/$2"
    ln -s "$1" "$base/$2"
}

# link_or_mount_point TARGET MODE NAME: a mount point where the base has a directory, else the link
link_or_mount_point() {
    if is_real "$base/$3"; then
        sys_directory=true
        mount_point "$2" "$3"
    else
        shared_link "$1" "$3"
    fi
}

# toml_list KEY LINES: print an array of TOML
toml_list() {
    if [ -n "$2" ]; then
        printf '%s = [\n%s\n]\n' "$1" "$2"
    else
        printf '%s = []\n' "$1"
    fi
}

# base_record PREFIX: print the base's record as TOML
base_record() {
    printf 'source = %s\nplatform = "%s"\ncreated = "%s"\n' "$source_toml" "$platform" "$created"
    printf 'entries = %s\nbytes = %s\nsys_directory = %s\n' "$entries" "$bytes" "$sys_directory"
    toml_list removed "${removed%?}"
    toml_list setuid "$setuid"
    # sh cannot read a file's capabilities: verify finds those of a base that a script made.
    toml_list capable ''
    printf 'sha256 = "%s"\n' "$sha256"
    toml_list notes "$notes"
    printf '\n[%sleft_out]\n%s' "$1" "$left_out"
}

# complete_base: write down what is complete, so that an interruption from here on can be finished
complete_base() {
    base_record '' >.layout/bases/.mroot.toml.000000000000
    {
        echo 'keep = ['
        for path in j/mroot skel/s skel/t; do
            if present "$path"; then printf '    "%s",\n' "$path"; fi
        done
        printf ']\n\n[base]\n'
        base_record base.
    } >.layout/.commit.toml.000000000000
    chmod 600 .layout/bases/.mroot.toml.000000000000 .layout/.commit.toml.000000000000
    sync
    mv .layout/.commit.toml.000000000000 .layout/commit.toml
    staging=
    commit_base
}

# commit_base: give what is complete its final names, the record last (layout recover does the same)
commit_base() {
    if [ -e .layout/bases/.mroot.toml.000000000000 ]; then
        promote skel/.new-s skel/s
        promote skel/.new-t skel/t
        promote j/.new-mroot j/mroot
        promote .layout/bases/.mroot.toml.000000000000 .layout/bases/mroot.toml
    elif [ ! -e .layout/bases/mroot.toml ]; then
        die "$root/.layout/commit.toml" 'an interrupted layout init' 'none: layout recover finishes it'
    fi
    sync
    rm -f .layout/commit.toml
}

# promote STAGED PATH: give one tree its final name; one that was there before stays
promote() {
    if present "$2"; then
        discard "$1"
    elif present "$1"; then
        mv "$1" "$2"
    fi
}
"""

FROM_HOST = r"""
# lay: make what the lines of standard input say: KIND MODE PATH, and where it comes from or leads to
lay() {
    while read -r kind mode path origin; do
        lay_one "$kind" "$mode" "$path" "$origin"
    done
}

# lay_one KIND MODE PATH ORIGIN: a directory, a link to ORIGIN, or a copy of the host's file ORIGIN
lay_one() {
    case $1 in
        dir) mkdir -m 700 "$base/$3" ;;
        link)
            ln -s -- "$4" "$base/$3"
            return 0
            ;;
        *) cp "$4" "$base/$3" ;;
    esac
    chmod "$2" "$base/$3"
}

# lay_text MODE PATH: write standard input to a file of the base
lay_text() {
    cat >"$base/$2"
    chmod "$1" "$base/$2"
}
"""

FROM_DIRECTORY_LINUX = r"""
# fill_from_directory: copy the source with owners, modes, times, hard links and extended attributes
fill_from_directory() {
    if [ ! -d "$source" ]; then conflict "$source" "$source" 'a directory'; fi
    # Spelled as /proc/self/mountinfo spells it.
    where=$(cd -P "$source" && pwd -P | sed 's/\\/\\134/g; s/ /\\040/g; s/\t/\\011/g')
    [ "$(mounts_below "$where")" = 0 ] || die "$source" 'a mount in it' 'a tree without mounts'
    cp -a "$source/." "$base/"
}
"""

FROM_DIRECTORY_FREEBSD = r"""
# fill_from_directory: copy the source with owners, modes, times, hard links and flags
fill_from_directory() {
    if [ ! -d "$source" ]; then conflict "$source" "$source" 'a directory'; fi
    [ "$(tally "$source/" -type d)" = "$(tally "$source/" -xdev -type d)" ] ||
        die "$source" 'a mount in it' 'a tree without mounts'
    # Left out and counted before: tar(1) says nothing of sockets in an archive.
    leave_out "$(tally "$source/" -type s)" socket
    pour "$source" "$base"
}
"""

FROM_ARCHIVE = r"""
# check_digest SHA256: the source is still the archive that was compared with its MANIFEST
check_digest() {
    if [ ! -f "$source" ]; then conflict "$source" "$source" 'an archive'; fi
    found=$(sha256 -q "$source" 2>/dev/null || sha256sum <"$source" | cut -d ' ' -f 1)
    [ "$found" = "$1" ] || die "$source" "sha256 $found" "$1"
}

# fill_from_archive: unpack the source; names that leave its root are refused before anything is made
fill_from_archive() {
    if [ ! -f "$source" ]; then conflict "$source" "$source" 'an archive'; fi
    bad=$(tar -tf "$source" | awk '/^\// || /(^|\/)\.\.(\/|$)/ { print; exit }')
    [ -z "$bad" ] || die "$source" "the entry $bad" 'names below the root of the archive'
    set -- --numeric-owner --same-owner
    # GNU tar leaves extended attributes, file capabilities among them, out unless it is told.
    case $(tar --version 2>/dev/null) in *GNU*) set -- "$@" --xattrs '--xattrs-include=*' ;; esac
    tar -xpf "$source" -C "$base" "$@"
}
"""
