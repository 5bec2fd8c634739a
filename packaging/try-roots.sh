#!/bin/sh
# install.sh in root file systems of other distributions and machines, the way people use it: curl (or busybox wget) into sh,
# as root and as somebody else; what can go wrong, a device in one line, upgrade, rollback, uninstall. Needs root, what build-static.sh left in
# target/static, debootstrap, qemu-user-static, busybox-static, iproute2, curl, python3. Not part of CI.
#
#   packaging/try-roots.sh [--make] [--log FILE] [amd64|arm64|armhf|busybox …]       all four, unless named
#
# --make     fetches the roots that are missing into target/roots (ROOTS names another folder), from Debian's mirror (MIRROR, or apt's)
# --log      keeps what all of them said
# BINARIES   a folder like target/static: ARCH/noports
#
# Each root is tried in namespaces of its own: mounts, processes, a network that is nothing but a loopback, and a kernel that
# starts foreign executables (binfmt_misc of our own, Linux 6.7). What is written goes into memory. Around it are an
# atServer, a rendezvous and a web server with releases; the newer release is the same executable that says another version.
#
# How far packages were tried: this script, in roots of Debian for x86_64, arm64 and armhf (emulated) and of busybox alone; on
# x86_64 a shell on the device then came through a real sshd. The images (packaging/containers) ran under podman 4.3 with crun
# and podman-compose 1.6, and kubernetes.yaml by "podman play kube"; the .deb on Debian 12 and 13 under systemd 252 and 257 and
# on OpenRC 0.45 with cron; the OpenWrt recipe against stand-ins for its build system and procd, on no router.
set -eu
cd "$(dirname "$0")/.."
binaries=${BINARIES:-$PWD/target/static}
roots=${ROOTS:-$PWD/target/roots}
# The first that apt knows here.
mirror=${MIRROR:-$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)}
extra=curl,ca-certificates,cron,sudo,openssh-server,openssh-client
native=$binaries/$(uname -m)/noports

say() { printf '%s\n' "$*"; }
die() {
    say "try-roots: $*" >&2
    exit 1
}

# --- namespaces -------------------------------------------------------------------------------------------------------

# Runs a part of this script in namespaces, with all users as they are: apart NET PART WORD …
apart() {
    net=$1
    shift
    door=$(mktemp -d)
    mkfifo "$door/ready" "$door/go"
    # shellcheck disable=SC2016,SC2086
    unshare --user --mount --pid --fork --kill-child --propagation private $net sh -c '
        echo >"$1/ready"
        read -r _ <"$1/go"
        shift
        exec "$@"' sh "$door" sh "$0" "$@" &
    entered=$!
    read -r _ <"$door/ready"
    echo "0 0 4294967295" >"/proc/$entered/uid_map"
    echo "0 0 4294967295" >"/proc/$entered/gid_map"
    echo >"$door/go"
    rm -r "$door"
    ended=0
    wait "$entered" || ended=$?
    entered=
    return $ended
}

# A kernel that starts executables of ARM. (F: the emulator is opened now, so no root needs to have it; C: su and crontab
# become whom they ask to be.)
foreign() {
    mount -t binfmt_misc binfmt_misc "$1" || die "no binfmt_misc of our own: this needs Linux 6.7"
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    tail='\x00\x00\x00\x00\x00\x00\x00\x00\x00'
    printf '%s\n' ":arm64:M::\\x7fELF\\x02\\x01\\x01${tail}\\x02\\x00\\xb7\\x00:$mask:$(command -v qemu-aarch64-static):CF" \
        >"$1/register"
    printf '%s\n' ":arm32:M::\\x7fELF\\x01\\x01\\x01${tail}\\x02\\x00\\x28\\x00:$mask:$(command -v qemu-arm-static):CF" \
        >"$1/register"
}

# --- making roots -----------------------------------------------------------------------------------------------------

make_root() {
    new=$roots/$1.new
    rm -rf "$new"
    mkdir -p "$new"
    case $1 in
    busybox)
        mkdir -p "$new/bin" "$new/root" "$new/home" "$new/etc" "$new/proc" "$new/dev" "$new/tmp" "$new/run" \
            "$new/var/spool/cron/crontabs"
        cp "$(command -v busybox)" "$new/bin/busybox"
        # For su and crontab.
        chmod 4755 "$new/bin/busybox"
        for applet in $(busybox --list); do
            [ "$applet" = busybox ] || ln -s busybox "$new/bin/$applet"
        done
        echo 'root:x:0:0:root:/root:/bin/sh' >"$new/etc/passwd"
        echo 'root:x:0:' >"$new/etc/group"
        ;;
    amd64)
        unshare --mount --propagation private \
            debootstrap --variant=minbase --include="$extra" bookworm "$new" "$mirror" >&2
        ;;
    *)
        unshare --mount --propagation private \
            debootstrap --foreign --arch="$1" --variant=minbase --include="$extra" bookworm "$new" "$mirror" >&2
        mkdir -p "$new/dev"
        for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 console:5:1 ptmx:5:2; do
            # shellcheck disable=SC2046
            mknod -m 666 "$new/dev/${node%%:*}" c $(echo "${node#*:}" | tr : ' ')
        done
        # Within the namespace no device can be made, and those that are needed are there.
        echo 'check_sane_mount() { :; }' >>"$new/debootstrap/functions"
        apart --net --second-stage "$new" >&2
        ;;
    esac
    mv "$new" "$roots/$1"
}

second_stage() {
    work=$(mktemp -d)
    foreign "$work"
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin
    chroot "$1" /debootstrap/debootstrap --second-stage
}

# --- releases ---------------------------------------------------------------------------------------------------------

arch_of() {
    case $1 in
    arm64) echo aarch64 ;;
    armhf) echo armv7 ;;
    *) echo x86_64 ;;
    esac
}

# As build-static.sh packs them: release ARCH EXECUTABLE VERSION WWW
release() {
    packed=noports-$3-$1
    mkdir -p "$4/stage/$packed"
    cp "$2" "$4/stage/$packed/noports"
    chmod 755 "$4/stage/$packed/noports"
    cp -R LICENSE README.md packaging/services packaging/completions "$4/stage/$packed/"
    tar -C "$4/stage" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner -cf - "$packed" |
        gzip -n9 >"$4/$packed.tar.gz"
    rm -r "$4/stage"
}

releases() { # both versions for one machine, in $www
    for version in "$first" "$second"; do
        LC_ALL=C sed "s/$(echo "$shipped" | sed 's/\./\\./g')/$version/g" "$binaries/$1/noports" >"$www/program"
        release "$1" "$www/program" "$version" "$www"
        rm "$www/program"
    done
    cp install.sh "$www/"
    (cd "$www" && sha256sum ./*.tar.gz install.sh | sed 's|\./||' >SHA256SUMS)
}

# --- one root ---------------------------------------------------------------------------------------------------------

# Runs a line in the root: as WHO LINE
as() {
    if [ "$1" = root ]; then
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb \
            chroot "$here" /bin/sh -c "cd; $2" </dev/null
    else
        env -i PATH="$PATH" TERM=dumb chroot "$here" su - "$1" -c "$2" </dev/null
    fi
}

# step WHO WHAT COMMAND…: one row of the table
step() {
    title="$name $1: $2"
    shift 2
    printf '\n== %s\n' "$title" >>"$log"
    began=$(date +%s)
    if "$@" >"$top/said" 2>&1; then outcome=ok; else outcome=FAILED; fi
    cat "$top/said" >>"$log"
    printf '   %-6s %-50s %s s\n' "$outcome" "$title" "$(($(date +%s) - began))"
    if [ $outcome = FAILED ]; then
        failed=$((failed + 1))
        sed 's/^/          | /' "$top/said"
    fi
}

line() { as "$1" "$get $url/install.sh | $2"; }

has_version() { [ "$(as "$1" "$(bin "$1")/noports --version")" = "noports $2" ]; }

bin() { if [ "$1" = root ]; then echo /usr/local/bin; else echo "/home/$1/.local/bin"; fi; }

installs() { line "$1" "NOPORTS_BASE=$url sh" && has_version "$1" "$first"; }

# The line of the README; somebody who has keys says yes.
becomes_device() { # WHO NAME HOW…
    who=$1
    called=$2
    shift 2
    code=$(here_is enroll otp @device)
    here_is enroll auto @device --app '.*' >"$top/auto" 2>&1 &
    approves=$!
    until [ -s "$top/auto" ]; do sleep 0.1; done
    line "$who" "${*+$* }NOPORTS_BASE=$url sh -s -- device --as @device --manager @alice --device $called --code $code \
        --permit-open localhost:8000 --root localhost:6400 --ca /ca.pem"
    done=$?
    kill $approves 2>/dev/null
    return $done
}

again() { # without a code: there are keys
    line "$1" "NOPORTS_BASE=$url sh -s -- device --as @device --manager @alice --device $2 \
        --permit-open localhost:8000 --root localhost:6400 --ca /ca.pem"
}

connected() { # within half a minute
    tries=0
    until as "$1" "$(bin "$1")/noports daemon status" | tee "$top/status" | grep -q 'connected  *for'; do
        tries=$((tries + 1))
        [ $tries -lt 30 ] || break
        sleep 1
    done
    cat "$top/status"
    # What runs is the file that is there now.
    process=$(sed -n 's/.*running .*process \([0-9]*\).*/\1/p' "$top/status")
    grep 'bin/noports' "$here/proc/$process/maps" | sed 's/.* //' | sort -u | tee "$top/runs"
    grep -q 'connected  *for' "$top/status" && grep -q noports "$top/runs" && ! grep -q deleted "$top/runs"
}

# Something comes through: the web server, as the device sees it.
reaches() {
    port=$(here_is tunnel --as @alice --to @device --device "$1" --via @rendezvous --forward 0:localhost:8000 --print) &&
        echo "port $port" && [ "$(curl -fsS "http://127.0.0.1:$port/VERSION")" = "$(cat "$www/VERSION")" ]
}

upgrades() {
    echo "$second" >"$www/VERSION"
    line "$1" "NOPORTS_BASE=$url sh" && has_version "$1" "$second" && grep -q 'is restarted' "$top/said"
}

rolls_back() {
    line "$1" "sh -s -- --rollback" && has_version "$1" "$first" && grep -q 'is restarted' "$top/said"
}

# Nothing but keys, data and a few empty things stay, and no process but sessions.
stays='/\.atsign|/\.ssh$|/\.local($|/share$|/share/noports|/lib$|/bin$)|/usr$|/usr/local($|/bin$|/lib$|/share$)|crontabs/|/local/share/man$'
uninstalls() {
    line "$1" "sh -s -- --uninstall" || return 1
    listing >"$top/after"
    diff "$top/before" "$top/after" | grep '^[<>]' | grep -v -E "$stays" && return 1
    # shellcheck disable=SC2016
    ! as root 'for each in /proc/[0-9]*; do tr "\0" " " <$each/cmdline; echo; done' 2>/dev/null |
        grep -v ' bridge ' | grep -E '[n]oports-daemon|local/bin/[n]oports'
}

# The README's way to a shell: sudo, the world in the environment, a real sshd; then ssh from somebody else's account.
shell_on_device() {
    as root 'mkdir -p /run/sshd && ssh-keygen -A && /usr/sbin/sshd && useradd -m -s /bin/sh owner &&
        echo "person ALL=(ALL) NOPASSWD:SETENV: ALL" >/etc/sudoers.d/person && mkdir -p /home/owner/.atsign' &&
        cp -R "$world/keys" "$here/home/owner/.atsign/keys" && rm "$here/home/owner/.atsign/keys/@device_key.atKeys" &&
        as root 'chown -R owner:owner /home/owner && rm -r /home/person/.atsign' || return 1
    as owner 'mkdir .ssh && ssh-keygen -q -t ed25519 -N "" -f .ssh/id_ed25519' &&
        as root 'mkdir -p -m 700 /home/person/.ssh && cat /home/owner/.ssh/id_ed25519.pub >>/home/person/.ssh/authorized_keys &&
            chown -R person:person /home/person/.ssh' || return 1
    code=$(here_is enroll otp @device)
    here_is enroll auto @device --app '.*' >"$top/auto" 2>&1 &
    approves=$!
    until [ -s "$top/auto" ]; do sleep 0.1; done
    ours='export NOPORTS_ROOT=localhost:6400 NOPORTS_CA=/ca.pem'
    as person "$ours NOPORTS_BASE=$url; curl -fsSL \$NOPORTS_BASE/install.sh |
        sudo -E sh -s -- device --as @device --manager @alice --device pi --code $code"
    done=$?
    kill $approves 2>/dev/null
    [ $done = 0 ] || return 1
    # shellcheck disable=SC2016
    as owner "$ours; noports client --as @alice --to @device --device pi --via @rendezvous -- \
        -o StrictHostKeyChecking=accept-new 'id -un; echo \$SSH_CONNECTION'" | tee "$top/shell"
    grep -q '^person$' "$top/shell" && grep -q '^127.0.0.1 .* 22$' "$top/shell"
}

listing() { (cd "$here" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./run -o -path ./tmp \) -prune -o -print | sort); }

without_cron() {
    crontab=$(as root 'which crontab')
    [ -n "$crontab" ] || return 1
    mv "$here$crontab" "$here/away"
    becomes_device person lonely && done=0 || done=$?
    mv "$here/away" "$here$crontab"
    echo "ended with $done"
    [ $done -ne 0 ] && grep -q 'hint: ' "$top/said"
}

here_is() { NOPORTS_ROOT=localhost:6400 NOPORTS_CA="$world/at/ca.pem" NOPORTS_KEYS="$world/keys" "$native" "$@"; }

# An atServer, a rendezvous and a web server.
around() {
    mkdir -p "$world/keys"
    "$native" atserver serve --data "$world/at" --port 6400 --first-port 0 --json >"$world/at.out" 2>>"$log" &
    until_says "$world/at.out" ready
    for each in @alice @device @rendezvous; do
        "$native" atserver add $each --data "$world/at" --secret-file "$world/secret" >>"$log" 2>&1
        here_is activate $each --secret-file "$world/secret" >>"$log" 2>&1
        rm "$world/secret"
    done
    here_is rendezvous --as @rendezvous --host 127.0.0.1 --json >"$world/rv.out" 2>>"$log" &
    until_says "$world/rv.out" ready
    python3 -m http.server --bind 127.0.0.1 --directory "$www" 8000 >"$world/web.log" 2>&1 &
    until curl -fsS -o "$world/version" "$url/VERSION" 2>/dev/null; do sleep 0.1; done
}

until_says() {
    tries=0
    until grep -q "$2" "$1" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -le 300 ] || die "$1 never said $2"
        sleep 0.1
    done
}

# The root, with what is written to it in memory.
enter() {
    mount -t tmpfs tmpfs "$top/memory"
    mkdir "$top/memory/upper" "$top/memory/work" "$top/memory/binfmt"
    here=$top/here
    mount -t overlay overlay -o "lowerdir=$roots/$name,upperdir=$top/memory/upper,workdir=$top/memory/work" "$here"
    foreign "$top/memory/binfmt"
    for each in proc dev tmp run; do
        # debootstrap leaves some as links to themselves.
        [ ! -L "$here/$each" ] || rm "$here/$each"
        mkdir -p "$here/$each"
    done
    mount -t proc proc "$here/proc"
    mount -t tmpfs -o mode=755 tmpfs "$here/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$here/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$here/run"
    for each in null zero full random urandom tty; do
        : >"$here/dev/$each"
        mount --bind "/dev/$each" "$here/dev/$each"
    done
    mkdir "$here/dev/pts"
    mount -t devpts -o newinstance,ptmxmode=0666 devpts "$here/dev/pts"
    ln -s pts/ptmx "$here/dev/ptmx"
    echo '127.0.0.1 localhost' >"$here/etc/hosts"
    if [ "$name" = busybox ]; then
        echo 'person:x:1000:1000::/home/person:/bin/sh' >>"$here/etc/passwd"
        echo 'person:x:1000:' >>"$here/etc/group"
        mkdir "$here/home/person"
        chown 1000:1000 "$here/home/person"
    else
        as root 'useradd -m -s /bin/sh person' >>"$log" 2>&1
    fi
}

inside() {
    name=$1 top=$2 log=$3 shipped=$4 first=$5 second=$6
    www=$top/www world=$top/world url=http://127.0.0.1:8000 failed=0
    quick=${QUICK-}
    ip link set lo up
    echo "$first" >"$www/VERSION"
    enter
    around
    cp "$world/at/ca.pem" "$here/ca.pem"
    chmod 644 "$here/ca.pem"
    get='wget -q -O -'
    [ -z "$(as root 'command -v curl')" ] || get='curl -fsSL'
    say "-- $name: $(as root 'uname -m; readlink /bin/sh' | tr '\n' ' ')with $get"
    [ -n "$quick" ] || failures
    for who in person root; do
        echo "$first" >"$www/VERSION"
        listing >"$top/before"
        [ -z "$quick" ] || continue
        step $who 'install' installs $who
        step $who 'the same again' installs $who
        [ $who = root ] || step $who 'a device, without cron' without_cron
        step $who 'a device in one line' becomes_device $who "$who-$name"
        step $who 'it is connected' connected $who
        step $who 'something comes through' reaches "$who-$name"
        step $who 'the same line again, without a code' again $who "$who-$name"
        step $who 'upgrade' upgrades $who
        step $who 'it is connected' connected $who
        step $who 'something comes through' reaches "$who-$name"
        step $who 'rollback' rolls_back $who
        step $who 'it is connected' connected $who
        step $who 'uninstall leaves keys only' uninstalls $who
    done
    echo "$first" >"$www/VERSION"
    step sudo 'a device in one line' becomes_device root "sudo-$name" SUDO_USER=person
    step sudo 'something comes through' reaches "sudo-$name"
    [ ! -x "$here/usr/sbin/sshd" ] || step person "the README's line, then a shell" shell_on_device
    [ $failed = 0 ] || die "$name: $failed failed"
}

# --- what can go wrong --------------------------------------------------------------------------------------------------

files() { (cd "$here" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./run -o -path ./tmp \) -prune -o ! -type d -print | sort); }

# A run of root's that must fail, with these words and a hint, and leave the root as it was, but for empty folders:
# fails WORDS BASE COMMAND…
fails() {
    wanted=$1 base=$2
    shift 2
    files >"$top/was"
    as root "$get $url/install.sh | NOPORTS_BASE=$base $*" && return 1
    files >"$top/is"
    grep -q 'hint: ' "$top/said" && grep -q -e "$wanted" "$top/said" && diff "$top/was" "$top/is"
}

# The same where the place to install to is this file system.
fails_on() { # OPTIONS
    mount -t tmpfs -o "$1" tmpfs "$here/usr/local" || return 1
    fails 'hint: ' "$url" sh && done=0 || done=1
    find "$here/usr/local" -type f | grep . && done=1
    umount "$here/usr/local"
    return "$done"
}

# A web server beside the other that sends half an archive; under /slow/ the rest some seconds later.
half_server() {
    python3 - "$www" <<'END' >"$world/half.log" 2>&1 &
import functools, http.server, os, sys, time
class Half(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path):
        return super().translate_path(path.replace("/slow/", "/"))
    def copyfile(self, source, out):
        archive = self.path.endswith(".gz")
        out.write(source.read(os.fstat(source.fileno()).st_size // 2 if archive else -1))
        if archive and self.path.startswith("/slow/"):
            time.sleep(4)
            out.write(source.read())
web = functools.partial(Half, directory=sys.argv[1])
http.server.ThreadingHTTPServer(("127.0.0.1", 8001), web).serve_forever()
END
    until curl -fsS -o "$world/version" "http://127.0.0.1:8001/VERSION" 2>/dev/null; do sleep 0.1; done
}

cut_script() { # what is not all there does nothing
    files >"$top/was"
    as root "$get $url/install.sh | head -c 9000 | NOPORTS_BASE=$url sh" && return 1
    files >"$top/is"
    diff "$top/was" "$top/is"
}

in_the_way() {
    mkdir -p "$here/usr/local/bin"
    echo '#!/bin/sh' >"$here/usr/local/bin/noports"
    fails "belongs to another program" "$url" sh && done=0 || done=1
    rm "$here/usr/local/bin/noports"
    return "$done"
}

interrupted() {
    as root "$get $url/install.sh | NOPORTS_BASE=http://127.0.0.1:8001/slow timeout -s KILL 2 sh" && return 1
    as root '[ ! -e /usr/local/bin/noports ]' && installs root && line root 'sh -s -- --uninstall'
}

two_at_once() {
    as root "$get $url/install.sh | NOPORTS_BASE=http://127.0.0.1:8001/slow sh" >"$top/slow" 2>&1 &
    slow=$!
    until [ -e "$here/usr/local/lib/noports/lock/pid" ]; do sleep 0.1; done
    as root "$get $url/install.sh | NOPORTS_BASE=$url sh" && done=1 || done=0
    grep -q 'another install.sh is running' "$top/said" || done=1
    wait $slow && has_version root "$first" && line root 'sh -s -- --uninstall' && return "$done"
}

older() {
    echo "$second" >"$www/VERSION"
    line root "NOPORTS_BASE=$url sh" && has_version root "$second" &&
        fails 'is older than' "$url" "sh -s -- --version $first" && line root 'sh -s -- --uninstall' && done=0 || done=1
    echo "$first" >"$www/VERSION"
    return "$done"
}

failures() {
    half_server
    mkdir "$www/wrong" "$here/tmp/stub" "$here/tmp/none"
    cp "$www"/*.tar.gz "$www/VERSION" "$www/SHA256SUMS" "$www/wrong/"
    for archive in "$www"/wrong/*.gz; do echo more >>"$archive"; done
    # shellcheck disable=SC2016
    printf '#!/bin/sh\ncase $1 in -m) echo pdp11 ;; *) echo Linux ;; esac\n' >"$here/tmp/stub/uname"
    chmod 755 "$here/tmp/stub/uname"
    step root 'no network' fails 'cannot get' http://127.0.0.1:1 sh
    step root 'nothing there' fails 'hint: ' "$url/nowhere" sh
    step root 'the script is cut' cut_script
    step root 'the download is cut' fails 'hint: ' http://127.0.0.1:8001 sh
    step root 'a wrong checksum' fails 'is wrong; nothing was changed' "$url/wrong" sh
    step root 'a full disk' fails_on size=1m
    step root 'a read-only prefix' fails_on ro
    # busybox has its tools in itself; none can be missing or another one.
    if [ "$name" != busybox ]; then
        # shellcheck disable=SC2016
        step root 'an unknown processor' fails pdp11 "$url" 'PATH=/tmp/stub:$PATH sh'
        step root 'missing tools' fails 'this needs' "$url" 'PATH=/tmp/none /bin/sh'
    fi
    step root "somebody else's file in the way" in_the_way
    step root 'killed half-way, then again' interrupted
    step root 'two at once' two_at_once
    step root 'an older version' older
}

# --- all of them ------------------------------------------------------------------------------------------------------

case ${1-} in
--inside)
    shift
    inside "$@"
    exit
    ;;
--second-stage)
    second_stage "$2"
    exit
    ;;
esac

make=
log=
while [ $# -gt 0 ]; do
    case $1 in
    --make) make=1 ;;
    --log)
        [ $# -ge 2 ] || die "--log needs a file"
        log=$2
        shift
        ;;
    -*) die "what is $1? (usage: see the top of this file)" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- amd64 arm64 armhf busybox
[ "$(id -u)" = 0 ] || die "this needs root, for namespaces with all users in them"
for tool in unshare ip curl python3 busybox qemu-aarch64-static qemu-arm-static debootstrap; do
    command -v $tool >/dev/null || die "$tool is missing (apt-get install util-linux iproute2 curl python3 busybox-static" \
        "qemu-user-static debootstrap)"
done
[ -x "$native" ] || die "there is no $native: packaging/build-static.sh first"
shipped=$("$native" --version | sed -n '1s/^noports //p')
# Two versions of the same length.
case $shipped in
*[0-8]) first=$shipped second=${shipped%?}$((${shipped##"${shipped%?}"} + 1)) ;;
*9) first=${shipped%9}8 second=$shipped ;;
*) die "the version $shipped does not end with a number" ;;
esac
entered=
top=$(mktemp -d)
trap '[ -z "$entered" ] || kill "$entered" 2>/dev/null; rm -rf "$top"' EXIT
trap 'exit 143' TERM INT HUP
[ -n "$log" ] || log=$top/log
: >"$log"
bad=
for name; do
    [ -d "$roots/$name" ] || [ -n "$make" ] || die "there is no $roots/$name: --make fetches it"
    [ -d "$roots/$name" ] || make_root "$name"
    [ -f "$binaries/$(arch_of "$name")/noports" ] || die "there is no $binaries/$(arch_of "$name")/noports"
    www=$top/$name/www
    mkdir -p "$www" "$top/$name/memory" "$top/$name/here" "$top/$name/world"
    releases "$(arch_of "$name")"
    apart --net --inside "$name" "$top/$name" "$log" "$shipped" "$first" "$second" || bad="$bad $name"
done
[ -z "$bad" ] || die "not all is well:$bad"
say "all is well"
