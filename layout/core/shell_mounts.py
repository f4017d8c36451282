"""The sh functions that mount a jail: on Linux in a private place first, on FreeBSD line by line."""

from __future__ import annotations

LINUX = r"""
# mounts_at PLACE: print how many mounts lie on a place, spelled as /proc/self/mountinfo spells it
mounts_at() { point=$1 awk '$5 == ENVIRON["point"] { n++ } END { print n + 0 }' /proc/self/mountinfo; }

# mounts_below PLACE: print how many mounts lie on a place or below it
mounts_below() {
    point=$1 awk '$5 == ENVIRON["point"] || index($5, ENVIRON["point"] "/") == 1 { n++ }
        END { print n + 0 }' /proc/self/mountinfo
}

# require_unmounted PATH: a tree is put into t only while no jail can write there
require_unmounted() {
    [ "$(mounts_at "$live/$1")" = 0 ] || die "$root/$1" 'a mount' 'none: stop the jail and umount it first'
}

# private_root: where / is shared, each mount of a jail would be copied into mroot and into all other jails,
# and the copies could be written. ROOT bound on itself and made private keeps every mount where it is.
private_root() {
    state=$(point=$live awk '$5 == ENVIRON["point"] { tag = $7 } END { print tag }' /proc/self/mountinfo)
    if [ "$state" = - ]; then return 0; fi
    # File systems mounted below ROOT come along. Jails that mount(8) mounted would be hidden: then it stays.
    if [ "$(mounts_below "$live/j")" != 0 ] || [ "$(mounts_below "$live/manage")" != 0 ]; then return 0; fi
    mount --rbind "$root" "$root"
    mount --make-rprivate "$root"
    cd -P "$root"
}

# begin_mounts: a place that only root can reach, where a mount gets its options before anybody can use it
begin_mounts() {
    private_root
    [ "$(mounts_below "$live/.layout/stage")" = 0 ] || die "$root/.layout/stage" 'a mount' 'none'
    if ! present .layout/stage; then mkdir -m 700 .layout/stage; fi
    is_real .layout/stage || conflict .layout/stage "$root/.layout/stage" 'a directory'
    # What lies on a shared mount cannot be moved.
    mount --bind "$root/.layout/stage" "$root/.layout/stage"
    mount --make-private "$root/.layout/stage"
}

# end_mounts: take away what is left in that place
end_mounts() {
    while [ "$(mounts_below "$live/.layout/stage")" != 0 ]; do
        # The newest first: nothing lies on it. Its name has escapes in that file.
        last=$(point=$live/.layout/stage awk '
            $5 == ENVIRON["point"] || index($5, ENVIRON["point"] "/") == 1 { last = $5 }
            END { print last }' /proc/self/mountinfo | sed 's/\\/\\0/g')
        umount "$(printf '%b' "$last")"
    done
    if [ -d .layout/stage ]; then rmdir .layout/stage; fi
}

# unmounted PATH: nothing is mounted there; a mount below it, which a jail would hide, stops us
unmounted() {
    if [ "$(mounts_at "$live/$1")" != 0 ]; then return 1; fi
    [ "$(mounts_below "$live/$1")" = 0 ] || die "$root/$1" 'a mount below it' 'nothing mounted before itself'
}

# stage_bind SOURCE PLACE OPTIONS: bind a tree below the staging place. Restrictions of its file system stay.
stage_bind() {
    case $1 in
        /*) origin=$1 ;;
        *)
            is_real "$1" || conflict "$1" "$root/$1" 'a directory'
            origin=$root/$1
            ;;
    esac
    is_real ".layout/stage$2" || conflict ".layout/stage$2" "$root/.layout/stage$2" 'a directory'
    mount --bind "$origin" "$root/.layout/stage$2"
    mount --make-private "$root/.layout/stage$2"
    kept=$(point=$live/.layout/stage$2 awk '$5 == ENVIRON["point"] { options = $6 } END {
        n = split(options, word, ",")
        for (i = 1; i <= n; i++)
            if (word[i] ~ /^(ro|nosuid|nodev|noexec|nosymfollow)$/) printf ",%s", word[i]
    }' /proc/self/mountinfo)
    mount -o "remount,bind,$3$kept" "$origin" "$root/.layout/stage$2"
}

# stage_devices SOURCE PLACE OPTIONS: a minimal /dev of its own: devtmpfs is one for the whole machine
stage_devices() {
    mount -t tmpfs -o "$3" "$1" "$root/.layout/stage$2"
    mount --make-private "$root/.layout/stage$2"
    while read -r kind name first second; do
        case $kind in
            node) mknod -m 666 ".layout/stage$2/$name" c "$first" "$second" ;;
            link) ln -s "$first" ".layout/stage$2/$name" ;;
            *)
                mkdir ".layout/stage$2/$name"
                chmod "$first" ".layout/stage$2/$name"
                ;;
        esac
    done
}

# attach PATH: move all that was staged to its place, at once: the jail appears whole or not at all
attach() {
    is_real "$1" || conflict "$1" "$root/$1" 'a directory'
    mount --move "$root/.layout/stage" "$root/$1"
    mount --make-rprivate "$root/$1"
}

# proven PATH OPTION...: the kernel's own list has exactly one mount there, private and with these options
proven() {
    where=$1
    shift
    point=$live/$where awk 'BEGIN { for (i = 1; i < ARGC; i++) wanted[i] = ARGV[i]; n = ARGC - 1; ARGC = 1
            while ((getline line < "/proc/self/mountinfo") > 0) {
                split(line, field, " ")
                if (field[5] == ENVIRON["point"]) { count++; options = "," field[6] ","; tag = field[7] }
            }
            if (count != 1 || tag != "-") exit 1
            for (i = 1; i <= n; i++) if (!index(options, "," wanted[i] ",")) exit 1
        }' "$@" || die "$root/$where" 'another mount, or none' "one private mount with ${*:-its options}"
}
"""

FREEBSD = r"""
# table_line PATH: print type and options of what is mounted there. mount -p escapes nothing: look for the
# path as a whole field; fields are separated by tabs or blanks.
table_line() {
    mount -p | path=$1 awk '{
        for (i = 1; i <= 4; i++) {
            field = substr("\t \t ", i, 1) ENVIRON["path"] substr("\t\t  ", i, 1)
            at = index($0, field)
            if (at) { rest = substr($0, at + length(field)); split(rest, word, /[ \t]+/)
                if (word[1] == "") print word[2], word[3]; else print word[1], word[2]
                next }
        }
    }' | tail -n 1
}

# require_unmounted PATH: a tree is put into t only while no jail can write there
require_unmounted() {
    [ -z "$(table_line "$root/$1" 2>/dev/null)" ] ||
        die "$root/$1" 'a mount' 'none: stop the jail and umount it first'
}

# begin_mounts: nothing is mounted by this run yet
begin_mounts() { made=0; }

# end_mounts: a jail without one of its mounts would be neither here nor there: take back what it has of them
end_mounts() {
    while [ "$made" != 0 ]; do
        eval "path=\$made_$made"
        # Only what is a mount point: umount(8) would take any other name for a source.
        # shellcheck disable=SC2154 # by eval
        if [ -n "$(table_line "$root/$path")" ]; then umount "$root/$path"; fi
        made=$((made - 1))
    done
}

# require_ruleset NUMBER: a ruleset that nobody loaded hides nothing
require_ruleset() {
    [ -n "$(devfs rule -s "$1" show)" ] ||
        die "devfs ruleset $1" 'no rules' 'rules that hide what a jail must not see (service devfs restart)'
}

# attach TYPE OPTIONS SOURCE PATH: mount, unless that is mounted: nullfs(5) refuses itself with EDEADLK
attach() {
    is_real "$4" || conflict "$4" "$root/$4" 'a directory'
    if [ -z "$(table_line "$root/$4")" ]; then
        mount -t "$1" -o "$2" "$3" "$root/$4"
        made=$((made + 1))
        eval "made_$made=\$4"
    fi
    proven "$1" "$2" "$4"
}

# attached: all mounts of this jail are there, and stay
attached() { made=0; }

# proven TYPE OPTIONS PATH: what is mounted there has this type, and is as read-only and restricted
proven() {
    found=$(table_line "$root/$3")
    for word in ro nosuid noexec nosymfollow; do
        case ,$2, in *",$word,"*) ;; *) continue ;; esac
        case ",${found#* }," in *",$word,"*) ;; *) die "$root/$3" "${found:-no mount}" "$1 $2" ;; esac
    done
    case $found in "$1 "*) ;; *) die "$root/$3" "${found:-no mount}" "$1 $2" ;; esac
}
"""
