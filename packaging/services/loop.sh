#!/bin/sh
@MARK@
# Runs the program again and again, where no service manager does. cron starts this at boot.

folder=@FOLDER@
name=@NAME@
export NOPORTS_STATE="$folder/$name.state"
@ENVIRONMENT@

run() {
    exec @COMMAND@
}

loops() { # loops PID: is that process this loop?
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null || return 1
    # A shell and this file: another program may have the number by now, and another instance's loop, too.
    [ ! -r "/proc/$1/cmdline" ] || tr '\0' '\n' <"/proc/$1/cmdline" | sed -n 2,3p | grep -q "\(^\|/\)$name\.sh\$"
}

main() {
    umask 077
    mkdir -p "$folder"
    loops "$(cat "$folder/$name.pid" 2>/dev/null)" && exit 0
    echo $$ >"$folder/$name.pid"
    child=
    # Only the program is ended; its sessions are processes of their own and live on.
    # shellcheck disable=SC2086
    trap 'kill $child 2>/dev/null; wait; rm -f "$folder/$name.pid"; exit 0' TERM INT HUP
    while :; do
        # The log of the run before last goes.
        [ ! -s "$folder/$name.log" ] || mv -f "$folder/$name.log" "$folder/$name.log.old"
        run >"$folder/$name.log" 2>&1 &
        child=$!
        wait "$child"
        # 2: a wrong flag, which does not get better by trying again.
        [ $? -ne 2 ] || break
        sleep 3 &
        child=$!
        wait "$child"
    done
    rm -f "$folder/$name.pid"
    exit 2
}

main
