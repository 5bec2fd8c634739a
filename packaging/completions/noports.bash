# bash completion for noports. The program itself says what can come next.

_noports() {
    local line=${COMP_LINE:0:COMP_POINT} breaks=${COMP_WORDBREAKS//[^@:=]/} keep= word candidate
    local -a words
    read -r -a words <<<"$line"
    case $line in *[[:space:]]) words+=("") ;; esac
    word=${words[${#words[@]} - 1]}
    # To bash a word begins anew behind an @, a : and a =, and only that part is replaced.
    [ -z "$breaks" ] || keep=${word%"${word##*[$breaks]}"}
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
