#!/bin/sh
# The executables of other machines, run on this one: each by itself, then together. Needs what build-static.sh left in
# target/static, qemu-user-static, ssh and sshd; nothing leaves this machine.
#
#   packaging/emulate.sh [x86_64|aarch64|armv7|armv6 …]       all four, unless named
#
# As many rounds of the whole story as there are machines: atServer, rendezvous, daemon and client are a different
# machine's each, and everyone plays every part once. A client runs ssh through the tunnel into a real sshd and fetches a file.
#
# A kernel starts a foreign executable by itself once it knows the emulator (binfmt_misc). It is told so in a namespace of
# our own (Linux 6.7 and later), not on this machine; that way the daemon's children are emulated too.
set -eu
cd "$(dirname "$0")/.."
files=$PWD/target/static

say() { printf '%s\n' "$*"; }
die() {
    say "emulate: $*" >&2
    exit 1
}

cpu() {
    case $1 in
    aarch64) echo cortex-a53 ;;
    armv7) echo cortex-a7 ;;
    armv6) echo arm1176 ;;
    *) echo max ;;
    esac
}

# Becomes the noports of a machine, in the world at hand: become ARCH WORD …
become() {
    QEMU_CPU=$(cpu "$1")
    export QEMU_CPU NOPORTS_ROOT="$root" NOPORTS_CA="$world/atserver/ca.pem" NOPORTS_KEYS="$world/keys" NOPORTS_DEBUG=1
    file=$files/$1/noports
    shift
    exec "$file" "$@" </dev/null
}
run() { (become "$@"); }

# Starts a service and waits until it is ready; its number is $child, and one of $children.
start() {
    name=$2
    : >"$world/$name.out"
    (become "$@" --json) >"$world/$name.out" 2>"$world/$name.log" &
    child=$!
    children="$children $child"
    wait_for "$world/$name.out" "$child" || die "the $name of $1 did not start: $(cat "$world/$name.log")"
}

wait_for() {
    tries=0
    until grep -q '"ready"' "$1"; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || ! kill -0 "$2" 2>/dev/null; then return 1; fi
        sleep 0.1
    done
}

now() { date +%s%N; }
since() { echo "$((($(now) - $1) / 1000000)) ms"; }

alone() {
    for arch in $archs; do
        [ -x "$files/$arch/noports" ] || die "there is no $files/$arch/noports: packaging/build-static.sh first"
        began=$(now)
        run "$arch" --version >/dev/null || die "$arch does not start"
        took=$(since "$began")
        run "$arch" --help | grep -q 'Start with: noports demo' || die "$arch has no help"
        say "-- $arch on $(cpu "$arch"): starts in $took"
        run "$arch" selftest || die "$arch does not work"
    done
}

# together ATSERVER RENDEZVOUS DAEMON CLIENT …
together() {
    say "-- atServer $1, rendezvous $2, daemon $3, client $4"
    began=$(now)
    world=$top/$1
    children=
    root=
    mkdir -p "$world/keys"
    start "$1" atserver serve --data "$world/atserver" --port 0
    root=$(sed -n 's/.*"directory":"\([^"]*\)".*/\1/p' "$world/atserver.out")
    for who in "$4 @alice" "$3 @device" "$2 @rendezvous"; do
        arch=${who% *}
        name=${who#* }
        run "$1" atserver add "$name" --data "$world/atserver" --secret-file "$world/secret" >/dev/null 2>&1
        made=$(now)
        run "$arch" activate "$name" --secret-file "$world/secret" >/dev/null 2>"$world/activate.log" ||
            die "$arch cannot activate $name: $(cat "$world/activate.log")"
        say "   $name activated by $arch in $(since "$made")"
        rm -f "$world/secret"
    done
    start "$2" rendezvous --as @rendezvous --host 127.0.0.1
    start "$3" daemon --as @device --manager @alice --device demo --sshd-port "$port"
    if [ "$3" = x86_64 ]; then
        say "   the daemon, idle: $(sed -n 's/^VmRSS:[[:space:]]*//p' "/proc/$child/status") resident, of that" \
            "$(sed -n 's/^RssAnon:[[:space:]]*//p' "/proc/$child/status") its own (the rest is the file)"
    fi
    asked=$(now)
    run "$4" client --as @alice --to @device --device demo --via @rendezvous --user "$user" --identity "$top/id" -- -F none \
        -o "UserKnownHostsFile=$top/known_hosts" -o StrictHostKeyChecking=yes -o BatchMode=yes \
        "cat $top/load; echo \$SSH_CONNECTION" >"$world/heard" 2>"$world/client.log" ||
        die "no session: $(cat "$world/client.log" "$world/daemon.log" "$world/rendezvous.log")"
    head -n -1 "$world/heard" | cmp - "$top/load" || die "the file came over damaged"
    tail -n 1 "$world/heard" | grep -q "^127.0.0.1 .* $port$" || die "that was not our sshd"
    say "   ssh session with 2 MB: $(since "$asked"); the round: $(since "$began")"
    # shellcheck disable=SC2086
    kill $children 2>/dev/null || true
    # shellcheck disable=SC2086
    wait $children 2>/dev/null || true
    children=
}

register() {
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    tail='\x00\x00\x00\x00\x00\x00\x00\x00\x00'
    printf '%s\n' ":arm64:M::\\x7fELF\\x02\\x01\\x01${tail}\\x02\\x00\\xb7\\x00:$mask:$(command -v qemu-aarch64-static):F" \
        >"$1/register"
    printf '%s\n' ":arm32:M::\\x7fELF\\x01\\x01\\x01${tail}\\x02\\x00\\x28\\x00:$mask:$(command -v qemu-arm-static):F" \
        >"$1/register"
}

inside() {
    top=$1
    port=$2
    user=$3
    shift 3
    archs=$*
    world=$top
    root=
    children=
    # shellcheck disable=SC2086,SC2154
    trap 'kill $children 2>/dev/null || true' EXIT
    mkdir "$top/binfmt"
    mount -t binfmt_misc binfmt_misc "$top/binfmt" || die "no binfmt_misc of our own: this needs Linux 6.7"
    register "$top/binfmt"
    alone
    # The first becomes the last, until everybody was the first.
    left=$archs
    for first in $archs; do
        # shellcheck disable=SC2086
        together $left $left $left $left
        left="${left#"$first"} $first"
        left=${left# }
    done
}

if [ "${1:-}" = --inside ]; then
    shift
    inside "$@"
    exit 0
fi

[ $# -gt 0 ] || set -- x86_64 aarch64 armv7 armv6
for tool in qemu-aarch64-static qemu-arm-static unshare ssh ssh-keygen; do
    command -v $tool >/dev/null || die "$tool is missing (apt-get install qemu-user-static util-linux openssh-client)"
done
sshd=$(command -v sshd || echo /usr/sbin/sshd)
[ -x "$sshd" ] || die "sshd is missing (apt-get install openssh-server)"
top=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$top"' EXIT
head -c 1500000 /dev/urandom | base64 >"$top/load"
ssh-keygen -q -t ed25519 -N '' -f "$top/host"
ssh-keygen -q -t ed25519 -N '' -f "$top/id"
cp "$top/id.pub" "$top/authorized_keys"
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$top/sshd_config" <<END
ListenAddress 127.0.0.1:$port
HostKey $top/host
AuthorizedKeysFile $top/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
END
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
"$sshd" -D -e -f "$top/sshd_config" 2>"$top/sshd.log" &
server=$!
printf 'demo.device.noports %s\n' "$(cat "$top/host.pub")" >"$top/known_hosts"
unshare --user --map-root-user --mount sh "$0" --inside "$top" "$port" "$(id -un)" "$@"
say "all of them work, alone and together"
