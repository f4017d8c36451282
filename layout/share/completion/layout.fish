# fish completion for layout(8); made by `layout completion fish`.

function __layout_words
    set -l words
    set -l tokens (commandline -opc)
    set -e tokens[1]
    while set -q tokens[1]
        switch $tokens[1]
            case --root --config
                set -e tokens[1]
            case '-*'
                switch "$words $tokens[1]"
                    case 'base build archive --output' 'base build archive * --output' 'base build debian --suite' 'base build debian * --suite' 'base build debian --packages' 'base build debian * --packages' 'base build debian --profiles' 'base build debian * --profiles' 'base build debian --output' 'base build debian * --output' 'base build debian --mirror' 'base build debian * --mirror' 'base build debian --variant' 'base build debian * --variant' 'base build dir --output' 'base build dir * --output' 'base build host --output' 'base build host * --output' 'fstab --platform' 'fstab * --platform' 'fstab --preset' 'fstab * --preset' 'fstab --manage' 'fstab * --manage' 'fstab --file' 'fstab * --file' 'init --profile' 'init * --profile' 'init --base' 'init * --base' 'init --platform' 'init * --platform' 'init --preset' 'init * --preset' 'init --manage' 'init * --manage' 'init --boot' 'init * --boot' 'plan --profile' 'plan * --profile' 'plan --base' 'plan * --base' 'plan --platform' 'plan * --platform' 'plan --preset' 'plan * --preset' 'plan --manage' 'plan * --manage' 'plan --boot' 'plan * --boot' 'render --platform' 'render * --platform' 'render --preset' 'render * --preset' 'render --manage' 'render * --manage' 'restart --engine' 'restart * --engine' 'start --engine' 'start * --engine'
                        set -e tokens[1]
                end
            case '*'
                set words $words $tokens[1]
        end
        set -q tokens[1]; and set -e tokens[1]
    end
    string join \n -- $words
end

function __layout_site
    set -l tokens (commandline -opc)
    for i in (seq 2 (count $tokens))
        switch $tokens[$i]
            case --root --config
                set -q tokens[(math $i + 1)]; and printf '%s\n' $tokens[$i] $tokens[(math $i + 1)]
        end
    end
end

# __layout_is COMMAND...: is this the command, with all of its words?
function __layout_is
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv)
    set -l last (count $wanted)
    test (count $words) -ge $last; and test "$words[1..$last]" = "$wanted"
end

# __layout_at COUNT COMMAND...: is the next word the one after COUNT arguments?
function __layout_at
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv[2..-1])
    __layout_is $wanted; and test (count $words) -eq (math $argv[1] + (count $wanted))
end

# __layout_from COUNT COMMAND...: are there that many arguments, or more?
function __layout_from
    set -l words (__layout_words)
    set -l wanted (string split ' ' -- $argv[2..-1])
    __layout_is $wanted; and test (count $words) -ge (math $argv[1] + (count $wanted))
end

function __layout_jails
    layout (__layout_site) --quiet status 2>/dev/null | awk 'NR > 1 { print $1 }'
end

function __layout_profiles
    layout (__layout_site) --quiet profile list 2>/dev/null | awk '{ print $1 }'
end

complete -c layout -f
complete -c layout -l root -d 'ROOT; configuration is in ROOT/etc then' -x -a '(__fish_complete_directories)'
complete -c layout -l config -d 'Configuration file' -r -F
complete -c layout -l json -d 'One JSON document on stdout'
complete -c layout -l verbose -s v -d 'Say more'
complete -c layout -l quiet -s q -d 'Results and errors only'
complete -c layout -l version -d 'Print the version and exit'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a advise -d 'Look at a program and propose a profile, without running it'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a audit -d 'Say what root of a jail can still write, execute and reach'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a base -d 'commands of base'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a completion -d 'Print the completion of the command line for a shell'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a destroy -d 'Remove one jail'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a exec -d 'Run a command in a running jail, with its rights and no more'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a fstab -d 'Print the mount table, or keep it in the host\'s fstab'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a init -d 'Make what is missing, idempotently, then mount and verify'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a manage -d 'Open a shell in a jail\'s writable chroot; say what changed'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a mount -d 'Mount jails by their tables, all of a jail\'s mounts or none'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a plan -d 'Print what init would do, one line a step, with its reason'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a profile -d 'commands of profile'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a recover -d 'Finish or undo what a crash interrupted'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a render -d 'Print a generated artefact'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a restart -d 'Stop the services of jails, if they run, and start them'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a selftest -d 'Attack jails made for it, in a throw-away root'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a show -d 'Draw the trees with what can be written marked'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a start -d 'Start the services of jails; wait until each is ready'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a status -d 'Print each jail\'s profile, service, mounts and open session'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a stop -d 'Stop the services of jails, each by its own signal'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a umount -d 'Unmount jails, deepest mount first'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a update -d 'Replace the program of an OS-less jail and start it again'
complete -c layout -n 'test (count (__layout_words)) -eq 0' -a verify -d 'Prove that ro is ro and rw is rw, for every jail'
complete -c layout -n '__layout_at 0 base' -a build -d 'commands of build'
complete -c layout -n '__layout_at 0 base' -a list -d 'Print the base of ROOT, where it is from, and what the cache has'
complete -c layout -n '__layout_at 0 base' -a merge -d 'Bring what sessions in the base changed to jails that lack it'
complete -c layout -n '__layout_at 0 base' -a verify -d 'Compare every file of mroot and skel with the base\'s manifest'
complete -c layout -n '__layout_at 0 base build' -a archive -d 'Pack what a base takes of an archive'
complete -c layout -n '__layout_at 0 base build' -a debian -d 'Build a Debian base with mmdebstrap'
complete -c layout -n '__layout_at 0 base build' -a dir -d 'Pack a directory, checked as init checks it'
complete -c layout -n '__layout_at 0 base build' -a host -d 'Pack the small base made of the host\'s own programs'
complete -c layout -n '__layout_at 0 profile' -a check -d 'Check profile files'
complete -c layout -n '__layout_at 0 profile' -a list -d 'List profiles, the site\'s and the shipped ones'
complete -c layout -n '__layout_at 0 profile' -a schema -d 'Print the JSON Schema of profiles, for editors'
complete -c layout -n '__layout_at 0 profile' -a show -d 'Print a profile\'s file'
complete -c layout -n '__layout_from 0 audit' -a '(__layout_jails)'
complete -c layout -n '__layout_is base build archive' -l output -d 'FILE.tar.zst, which does not exist yet' -r -F
complete -c layout -n '__layout_at 0 base build archive' -F
complete -c layout -n '__layout_is base build debian' -l suite -d 'The release, by its code name' -x
complete -c layout -n '__layout_is base build debian' -l packages -d 'Packages, with commas between them' -x
complete -c layout -n '__layout_is base build debian' -l profiles -d 'Profiles whose packages are wanted, with commas between them' -x
complete -c layout -n '__layout_is base build debian' -l output -d 'FILE.tar.zst; in layout\'s cache when not given' -r -F
complete -c layout -n '__layout_is base build debian' -l mirror -d 'URI or line of sources.list(5); the host\'s own when not given' -x
complete -c layout -n '__layout_is base build debian' -l variant -d 'How small: minbase (with apt-get), apt, essential' -x
complete -c layout -n '__layout_is base build debian' -l fresh -d 'Build it even if it was built before'
complete -c layout -n '__layout_is base build dir' -l output -d 'FILE.tar.zst, which does not exist yet' -r -F
complete -c layout -n '__layout_at 0 base build dir' -a '(__fish_complete_directories)'
complete -c layout -n '__layout_is base build host' -l output -d 'FILE.tar.zst, which does not exist yet' -r -F
complete -c layout -n '__layout_from 0 base merge' -a '(__layout_jails)'
complete -c layout -n '__layout_is base verify' -l update -d 'Accept what is there now: write the manifests anew'
complete -c layout -n '__layout_at 0 completion' -a 'bash zsh fish'
complete -c layout -n '__layout_at 0 destroy' -a '(__layout_jails)'
complete -c layout -n '__layout_at 0 exec' -a '(__layout_jails)'
complete -c layout -n '__layout_is fstab' -l platform -d 'Whose mounts to spell' -x -a 'freebsd linux'
complete -c layout -n '__layout_is fstab' -l preset -d 'Mount options' -x -a 'classic hardened'
complete -c layout -n '__layout_is fstab' -l manage -d 'When the writable half is mounted: in a session, or always' -x -a 'session boot'
complete -c layout -n '__layout_is fstab' -l install -d 'Put the table into the host\'s fstab'
complete -c layout -n '__layout_is fstab' -l remove -d 'Take it out again'
complete -c layout -n '__layout_is fstab' -l force -d 'Even when the block was edited by hand'
complete -c layout -n '__layout_is fstab' -l file -d 'This file instead of the host\'s fstab' -r -F
complete -c layout -n '__layout_from 0 fstab' -a '(__layout_jails)'
complete -c layout -n '__layout_is init' -l profile -d 'Profile, if not the one named like the jail' -x -a '(__layout_profiles)'
complete -c layout -n '__layout_is init' -l base -d 'Source of mroot: a directory, an archive, \'host\', \'dist\', \'pkgbase\' or \'src:DIR\'' -r -F
complete -c layout -n '__layout_is init' -l platform -d 'Whose mounts to spell' -x -a 'freebsd linux'
complete -c layout -n '__layout_is init' -l preset -d 'Mount options' -x -a 'classic hardened'
complete -c layout -n '__layout_is init' -l manage -d 'When the writable half is mounted: in a session, or always' -x -a 'session boot'
complete -c layout -n '__layout_is init' -l boot -d 'Who mounts when the host starts: jail(8) or layout, the fstab, nobody' -x -a 'jail fstab none'
complete -c layout -n '__layout_is init' -l no-mount -d 'Build the trees and tables only'
complete -c layout -n '__layout_is init' -l example -d 'Write the profile\'s example configuration too, where there is none'
complete -c layout -n '__layout_is init' -l dry-run -s n -d 'Print the plan and change nothing'
complete -c layout -n '__layout_is init' -l userns -d 'As an ordinary user: in a user namespace, for the time of this run'
complete -c layout -n '__layout_from 0 init' -a '(__layout_profiles)'
complete -c layout -n '__layout_is manage' -l sealed -d 'Without the jail\'s own /var and /tmp'
complete -c layout -n '__layout_is manage' -l base-ro -d 'With the shared base read-only'
complete -c layout -n '__layout_is manage' -l chroot -d 'FreeBSD: plain chroot(8), not confined'
complete -c layout -n '__layout_is manage' -l base -d 'In the base itself, for packages; then merge it into the jails'
complete -c layout -n '__layout_at 0 manage' -a '(__layout_jails)'
complete -c layout -n '__layout_is mount' -l manage -d 'The writable halves too'
complete -c layout -n '__layout_from 0 mount' -a '(__layout_jails)'
complete -c layout -n '__layout_is plan' -l profile -d 'Profile, if not the one named like the jail' -x -a '(__layout_profiles)'
complete -c layout -n '__layout_is plan' -l base -d 'Source of mroot: a directory, an archive, \'host\', \'dist\', \'pkgbase\' or \'src:DIR\'' -r -F
complete -c layout -n '__layout_is plan' -l platform -d 'Whose mounts to spell' -x -a 'freebsd linux'
complete -c layout -n '__layout_is plan' -l preset -d 'Mount options' -x -a 'classic hardened'
complete -c layout -n '__layout_is plan' -l manage -d 'When the writable half is mounted: in a session, or always' -x -a 'session boot'
complete -c layout -n '__layout_is plan' -l boot -d 'Who mounts when the host starts: jail(8) or layout, the fstab, nobody' -x -a 'jail fstab none'
complete -c layout -n '__layout_is plan' -l no-mount -d 'Build the trees and tables only'
complete -c layout -n '__layout_is plan' -l script -d 'As a POSIX sh script that does it by hand'
complete -c layout -n '__layout_from 0 plan' -a '(__layout_profiles)'
complete -c layout -n '__layout_from 0 profile check' -F
complete -c layout -n '__layout_at 0 profile show' -a '(__layout_profiles)'
complete -c layout -n '__layout_is render' -l platform -d 'Whose mounts to spell' -x -a 'freebsd linux'
complete -c layout -n '__layout_is render' -l preset -d 'Mount options' -x -a 'classic hardened'
complete -c layout -n '__layout_is render' -l manage -d 'When the writable half is mounted: in a session, or always' -x -a 'session boot'
complete -c layout -n '__layout_at 0 render' -a 'fstab jail.conf rc.conf rc.d rc.d-verify periodic layout.toml unit nspawn dropin pf.conf ipnat nft'
complete -c layout -n '__layout_from 1 render' -a '(__layout_jails)'
complete -c layout -n '__layout_is restart' -l engine -d 'Linux: what keeps it, if not what its profile says' -x -a 'auto bwrap nspawn unit'
complete -c layout -n '__layout_from 0 restart' -a '(__layout_jails)'
complete -c layout -n '__layout_from 0 show' -a '(__layout_jails)'
complete -c layout -n '__layout_is start' -l engine -d 'Linux: what keeps it, if not what its profile says' -x -a 'auto bwrap nspawn unit'
complete -c layout -n '__layout_from 0 start' -a '(__layout_jails)'
complete -c layout -n '__layout_from 0 status' -a '(__layout_jails)'
complete -c layout -n '__layout_from 0 stop' -a '(__layout_jails)'
complete -c layout -n '__layout_is umount' -l manage -d 'Only the writable halves'
complete -c layout -n '__layout_from 0 umount' -a '(__layout_jails)'
complete -c layout -n '__layout_at 0 update' -a '(__layout_jails)'
complete -c layout -n '__layout_is verify' -l quick -d 'Mounts, links, modes and records only'
complete -c layout -n '__layout_is verify' -l probe -d 'Really try, from within each jail; by default unless --quick'
complete -c layout -n '__layout_is verify' -l base -d 'Compare the base\'s files with their manifest as well'
complete -c layout -n '__layout_from 0 verify' -a '(__layout_jails)'
