# bash completion for layout(8); made by `layout completion bash`.

_layout()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' kind='' words='' options='' i count=0
    local -a site=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --) return ;;
        --root | --config)
            site+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}")
            i=$((i + 1))
            ;;
        -*)
            case "$command ${COMP_WORDS[i]}" in
            'base build archive --output' | 'base build debian --suite' | 'base build debian --packages' | 'base build debian --profiles' | 'base build debian --output' | 'base build debian --mirror' | 'base build debian --variant' | 'base build dir --output' | 'base build host --output' | 'fstab --platform' | 'fstab --preset' | 'fstab --manage' | 'fstab --file' | 'init --profile' | 'init --base' | 'init --platform' | 'init --preset' | 'init --manage' | 'init --boot' | 'plan --profile' | 'plan --base' | 'plan --platform' | 'plan --preset' | 'plan --manage' | 'plan --boot' | 'render --platform' | 'render --preset' | 'render --manage' | 'restart --engine' | 'start --engine') i=$((i + 1)) ;;
            esac
            ;;
        *)
            case $command in
            '' | 'base' | 'base build' | 'profile') command="${command:+$command }${COMP_WORDS[i]}" ;;
            *) count=$((count + 1)) ;;
            esac
            ;;
        esac
    done
    # An option takes the word after it, a command the words after that.
    case "$command $prev" in
    *' --root') kind='directory' ;;
    *' --config') kind='file' ;;
    'base build archive --output') kind='file' ;;
    'base build debian --suite') kind='any' ;;
    'base build debian --packages') kind='any' ;;
    'base build debian --profiles') kind='any' ;;
    'base build debian --output') kind='file' ;;
    'base build debian --mirror') kind='any' ;;
    'base build debian --variant') kind='any' ;;
    'base build dir --output') kind='file' ;;
    'base build host --output') kind='file' ;;
    'fstab --platform') kind='choice' words='freebsd linux' ;;
    'fstab --preset') kind='choice' words='classic hardened' ;;
    'fstab --manage') kind='choice' words='session boot' ;;
    'fstab --file') kind='file' ;;
    'init --profile') kind='profile' ;;
    'init --base') kind='file' ;;
    'init --platform') kind='choice' words='freebsd linux' ;;
    'init --preset') kind='choice' words='classic hardened' ;;
    'init --manage') kind='choice' words='session boot' ;;
    'init --boot') kind='choice' words='jail fstab none' ;;
    'plan --profile') kind='profile' ;;
    'plan --base') kind='file' ;;
    'plan --platform') kind='choice' words='freebsd linux' ;;
    'plan --preset') kind='choice' words='classic hardened' ;;
    'plan --manage') kind='choice' words='session boot' ;;
    'plan --boot') kind='choice' words='jail fstab none' ;;
    'render --platform') kind='choice' words='freebsd linux' ;;
    'render --preset') kind='choice' words='classic hardened' ;;
    'render --manage') kind='choice' words='session boot' ;;
    'restart --engine') kind='choice' words='auto bwrap nspawn unit' ;;
    'start --engine') kind='choice' words='auto bwrap nspawn unit' ;;
    esac
    case ${kind:-$command} in
    'base build archive') options='--output' ;;
    'base build debian') options='--suite --packages --profiles --output --mirror --variant --fresh' ;;
    'base build dir') options='--output' ;;
    'base build host') options='--output' ;;
    'base verify') options='--update' ;;
    'fstab') options='--platform --preset --manage --install --remove --force --file' ;;
    'init') options='--profile --base --platform --preset --manage --boot --no-mount --example --dry-run -n --userns' ;;
    'manage') options='--sealed --base-ro --chroot --base' ;;
    'mount') options='--manage' ;;
    'plan') options='--profile --base --platform --preset --manage --boot --no-mount --script' ;;
    'render') options='--platform --preset --manage' ;;
    'restart') options='--engine' ;;
    'start') options='--engine' ;;
    'umount') options='--manage' ;;
    'verify') options='--quick --probe --base' ;;
    esac
    case ${kind:-"$command $count"} in
    ' '[0-9]*) kind='choice' words='advise audit base completion destroy exec fstab init manage mount plan profile recover render restart selftest show start status stop umount update verify' ;;
    'base '[0-9]*) kind='choice' words='build list merge verify' ;;
    'base build '[0-9]*) kind='choice' words='archive debian dir host' ;;
    'profile '[0-9]*) kind='choice' words='check list schema show' ;;
    'advise 0') kind='any' ;;
    'audit '*) kind='jail' ;;
    'base build archive 0') kind='file' ;;
    'base build dir 0') kind='directory' ;;
    'base merge '*) kind='jail' ;;
    'completion 0') kind='choice' words='bash zsh fish' ;;
    'destroy 0') kind='jail' ;;
    'exec 0') kind='jail' ;;
    'exec '*) kind='any' ;;
    'fstab '*) kind='jail' ;;
    'init '*) kind='profile' ;;
    'manage 0') kind='jail' ;;
    'manage '*) kind='any' ;;
    'mount '*) kind='jail' ;;
    'plan '*) kind='profile' ;;
    'profile check '*) kind='file' ;;
    'profile show 0') kind='profile' ;;
    'render 0') kind='choice' words='fstab jail.conf rc.conf rc.d rc.d-verify periodic layout.toml unit nspawn dropin pf.conf ipnat nft' ;;
    'render '*) kind='jail' ;;
    'restart '*) kind='jail' ;;
    'show '*) kind='jail' ;;
    'start '*) kind='jail' ;;
    'status '*) kind='jail' ;;
    'stop '*) kind='jail' ;;
    'umount '*) kind='jail' ;;
    'update 0') kind='jail' ;;
    'update 1') kind='any' ;;
    'update 2') kind='any' ;;
    'verify '*) kind='jail' ;;
    esac
    case $kind in
    jail) words=$(layout "${site[@]}" --quiet status 2>/dev/null | awk 'NR > 1 { print $1 }') ;;
    profile) words=$(layout "${site[@]}" --quiet profile list 2>/dev/null | awk '{ print $1 }') ;;
    file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
    esac
    case $kind in
    file | directory)
        compopt -o filenames 2>/dev/null
        return
        ;;
    esac
    case $cur in
    -*) words="$options --root --config --json --verbose -v --quiet -q --version" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _layout layout
