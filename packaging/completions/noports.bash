# bash completion for noports. The program itself says what can come next.

_noports() {
    local line=${COMP_LINE:0:COMP_POINT} word keep candidate
    local -a words
    read -r -a words <<<"$line"
    case $line in *[[:space:]]) words+=("") ;; esac
    word=${words[${#words[@]} - 1]}
    # To bash a word begins anew at an @ and behind a : or =, and only that part ($2) is replaced.
    keep=${word%"$2"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [ "$candidate" = :files ]; then
            compopt -o default
        else
            COMPREPLY+=("${candidate#"$keep"}")
        fi
    done < <(noports docs complete "${words[@]}" 2>/dev/null)
}

complete -F _noports noports sshnp npt sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate
