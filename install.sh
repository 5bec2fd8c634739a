#!/bin/sh
# Installs noports: one static executable, its links, manual pages and completions. `sh install.sh --help` says more.
# All of it is functions, called on the last line: a download that was cut off does nothing.
#
# "A && B || fail" is meant as it reads: fail when either of them does.
# shellcheck disable=SC2015
set -eu

# Where releases are, and the key that they are signed with (packaging/sign.sh). There is no public address yet, and no key.
RELEASES=
PUBLIC_KEY=
LINKS="sshnp npt sshnpd srvd sshrvd srv sshrv npp_file npp_atserver at_activate"

# What a download may take, so that nobody who answers can fill the disk or keep this waiting for ever. An archive has 4 MB;
# on the slowest line that it is worth waiting on, 5 kB/s, that takes 15 minutes.
ARCHIVE_BLOCKS=80000 ARCHIVE_SECONDS=1800 # blocks of 512 bytes: 40 MB
LIST_BLOCKS=128 LIST_SECONDS=60
UNPACKED=100000000

say() { printf '%s\n' "$*" >&2; }

# fail CODE WHAT HINT
fail() {
    say "install.sh: $2"
    [ -z "${3-}" ] || say "  hint: $3"
    exit "$1"
}

misuse() { fail 2 "$1" "sh install.sh --help"; }

need() { # need WORD VALUE…: a flag's value has to be there
    [ $# -ge 2 ] || misuse "$1 needs a value"
}

help() {
    cat <<'END'
Installs noports: one static executable, its links, manual pages and completions.
As root into /usr/local, else into ~/.local. Run from a checkout it builds that; else it downloads a release.

  sh install.sh [flags]
      install or upgrade
  sh install.sh [flags] device --as @device --manager @me --code XXXX [flags of noports daemon install]
      also: ask for keys, install the service, check that it is connected

  --base URL      where releases are (or NOPORTS_BASE)
  --prefix DIR    install here instead of /usr/local or ~/.local
  --version X     install this version instead of the newest
  --local FILE    install this archive instead of a download
  --rollback      go back to the previous version
  --uninstall     remove services, program, links and manual pages; keys and data stay
  --downgrade     allow an older version
  --public-key K  check that releases are signed with this key (or NOPORTS_PUBLIC_KEY): RW…, or its file; it is remembered
  --no-signature  install what is not signed
  --all-users     as root: also restart, or uninstall, the services of users
  --force         replace files of other programs; allow --downgrade and plain http
  --no-restart    leave running services alone
  --dry-run       show what would be done
END
}

has() { command -v "$1" >/dev/null 2>&1; }

cleanup() {
    [ -z "$scratch" ] || rm -rf "$scratch"
    [ -z "$staged" ] || rm -rf "$staged"
    [ -z "$fresh" ] || rm -f "$fresh"
    [ -z "$locked" ] || rm -rf "$locked"
}

main() {
    base=${NOPORTS_BASE-$RELEASES} prefix='' wanted='' local='' action=install
    force='' downgrade='' dry='' restart=1 device='' key=${NOPORTS_PUBLIC_KEY-} unsigned='' everybody='' with='' remembered=''
    scratch='' staged='' fresh='' locked=''
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    while [ $# -gt 0 ]; do
        case $1 in
        --base) need "$@" && base=$2 && shift ;;
        --prefix) need "$@" && prefix=$2 && shift ;;
        --version) need "$@" && wanted=$2 && shift ;;
        --local) need "$@" && local=$2 && shift ;;
        --public-key) need "$@" && key=$2 && shift ;;
        --no-signature) unsigned=1 ;;
        --all-users) everybody=1 ;;
        --rollback) action=rollback ;;
        --uninstall) action=uninstall ;;
        --force) force=1 downgrade=1 ;;
        --downgrade) downgrade=1 ;;
        --dry-run) dry=1 ;;
        --no-restart) restart='' ;;
        -h | --help | help) help && exit 0 ;;
        device) device=1 && shift && break ;;
        *) misuse "unknown word: $1" ;;
        esac
        shift
    done

    [ "$(id -u)" = 0 ] && root=1 || root=''
    # What root installs is for everybody.
    [ -z "$root" ] || umask 022
    if [ -z "$prefix" ]; then
        if [ -n "$root" ]; then
            prefix=/usr/local
        else
            [ -n "${HOME-}" ] || fail 2 "HOME is not set, so there is no ~/.local to install into" "--prefix DIR, or set HOME"
            prefix=$HOME/.local
        fi
    fi
    case $prefix in
    /*) ;;
    *) prefix=$(pwd)/$prefix ;;
    esac
    bin=$prefix/bin home=$prefix/lib/noports
    # Whose services root reaches: its own, or everybody's.
    own=
    [ -z "$root" ] || [ -n "$everybody" ] || own=--own
    target=$bin/noports receipt=$home/receipt

    [ -z "$device" ] || check_device "$@"
    case $action in
    install) install ;;
    rollback) rollback ;;
    uninstall) uninstall ;;
    esac
    [ -z "$device" ] || [ -n "$dry" ] || device "$@"
}

# --- what is here ---------------------------------------------------------------------------------------------

sha256() { # sha256 FILE: its checksum, or nothing
    if has sha256sum; then
        sha256sum "$1"
    elif has shasum; then
        shasum -a 256 "$1"
    elif has openssl; then
        openssl dgst -sha256 -r "$1"
    elif has busybox; then
        busybox sha256sum "$1"
    fi | cut -d ' ' -f 1
}

# The receipt says which executables were put here, and which versions they are. So whatever moment a run is cut
# at, the file in place is known.
version_here() { # of the file in place: its version, or nothing when it is not ours
    [ -f "$target" ] && [ -f "$receipt" ] || return 0
    sum=$(sha256 "$target")
    while read -r _ known version; do
        if [ "$known" = "$sum" ]; then
            echo "$version"
            return 0
        fi
    done <"$receipt"
}

must_be_ours() { # must_be_ours HINT
    [ ! -e "$target" ] || [ -n "$here" ] || [ -n "$force" ] || fail 1 "$target belongs to another program, or was changed" "$1"
}

older() { # older A B: is A an older version than B?
    [ "$1" != "$2" ] && printf '%s\n%s\n' "$1" "$2" | awk -F '[.+-]' '
        { for (i = 1; i <= 3; i++) part[NR, i] = $i + 0; pre[NR] = $0 ~ /-/ }
        END {
            for (i = 1; i <= 3; i++) if (part[1, i] != part[2, i]) exit !(part[1, i] < part[2, i])
            exit !(pre[1] && !pre[2])
        }'
}

cpu() {
    [ "$(uname -s)" = Linux ] ||
        fail 1 "there are releases for Linux only, and this is $(uname -s)" "try to build it: sh install.sh in a checkout; nobody has yet"
    case $(uname -m) in
    x86_64 | amd64) echo x86_64 ;;
    aarch64 | arm64 | armv8*) echo aarch64 ;;
    armv7*) echo armv7 ;;
    armv6*) echo armv6 ;;
    *) fail 1 "there is no release for this processor, $(uname -m)" "build it: sh install.sh in a checkout" ;;
    esac
}

needs() {
    for tool; do
        has "$tool" || fail 1 "this needs $tool, which is not installed" "install $tool with your package manager"
    done
}

owner() { sed -n '/^[0-9][0-9]*$/{p;q;}' "$1/pid" 2>/dev/null || :; }

# One run at a time. A lock whose owner is gone is taken over.
lock() {
    mkdir -p "$bin" "$home" 2>/dev/null && [ -w "$bin" ] && [ -w "$home" ] ||
        fail 1 "cannot write below $prefix" "sudo, or --prefix \$HOME/.local"
    if ! mkdir "$home/lock" 2>/dev/null; then
        owner=$(owner "$home/lock")
        # One that has just begun says who it is in no time.
        [ -n "$owner" ] || sleep 2
        owner=$(owner "$home/lock")
        [ -z "$owner" ] || ! kill -0 "$owner" 2>/dev/null ||
            fail 1 "another install.sh is running here, process $owner" "wait for it"
        # Whoever was faster has made a new one: that stays.
        mv "$home/lock" "$home/lock.old.$$" 2>/dev/null || :
        now=$(owner "$home/lock.old.$$")
        if [ "$now" != "$owner" ] && mv "$home/lock.old.$$" "$home/lock" || ! mkdir "$home/lock" 2>/dev/null; then
            rm -rf "$home/lock.old.$$"
            fail 1 "another install.sh is running here${now:+, process $now}" "wait for it"
        fi
    fi
    locked=$home/lock
    echo $$ >"$locked/pid" || fail 1 "no space left below $prefix" "free some space there"
    # What a run that was cut off left behind.
    rm -rf "$home"/lock.old.* "$home"/stage.* "$bin"/.noports.new.*
}

# --- getting a release ------------------------------------------------------------------------------------------

fetch() { # fetch URL FILE BLOCKS SECONDS: with limits for size and time
    ended=0
    (
        # POSIX knows only the second; what goes on without the first may leave a core file.
        # shellcheck disable=SC3045
        ulimit -c 0 2>/dev/null || :
        ulimit -f "$3"
        if has curl; then
            exec curl -fsSL --connect-timeout 20 --max-time "$4" --speed-limit 500 --speed-time 30 --retry 2 \
                --retry-max-time "$4" -o "$2" "$1"
        elif wget --version 2>/dev/null | grep -q GNU; then
            set -- wget -q -T 20 -t 3 -O "$2" "$1" "$4"
        else
            # busybox' own: with -T some versions of it crash.
            set -- wget -q -O "$2" "$1" "$4"
        fi
        limited "$@"
    ) || ended=$?
    case $ended in
    0) return 0 ;;
    153) fail 1 "$1 is bigger than anything that is released; nothing was changed" "check the address (--base URL)" ;;
    28 | 124 | 143) fail 1 "$1 takes too long; nothing was changed" "check the network, and the address (--base URL)" ;;
    22 | 8)
        [ "$1" = "${1%.minisig}" ] || fail 1 "there is no signature, $1; nothing was changed" \
            "--no-signature if that is how you want it"
        fail 1 "there is no $1" "check the address (--base URL) and the version (--version X)"
        ;;
    23 | 3) fail 1 "no space for a download in ${TMPDIR:-/tmp}" "free some space, or set TMPDIR to another folder" ;;
    18) fail 1 "the download of $1 was cut off" "try again" ;;
    *) fail 1 "cannot get $1" "check the network and the address: --base URL, or --local FILE" ;;
    esac
}

limited() { # limited COMMAND… SECONDS, where this machine can
    left=$#
    while [ "$left" -gt 1 ]; do
        set -- "$@" "$1"
        shift
        left=$((left - 1))
    done
    seconds=$1
    shift
    if timeout 5 true 2>/dev/null; then
        exec timeout "$seconds" "$@"
    elif timeout -t 5 true 2>/dev/null; then
        exec timeout -t "$seconds" "$@"
    fi
    exec "$@"
}

fetch_list() { fetch "$base/$1" "$scratch/$1" $LIST_BLOCKS $LIST_SECONDS; }

check_base() {
    [ -n "$base" ] || fail 2 "no address to download from (there is no public one yet)" \
        "--base URL (or NOPORTS_BASE), --local FILE, or run install.sh in a checkout"
    base=${base%/}
    case $base in
    https://* | http://127.* | http://localhost | http://localhost:* | http://localhost/* | http://\[::1\]*) ;;
    http://*)
        # Checksums come from the same place: without TLS anybody on the way could change both.
        [ -n "$force" ] || fail 2 "$base is not https" "add --force if you trust everybody on the network path"
        ;;
    *) fail 2 "$base is not an http address" "--base https://…" ;;
    esac
}

plain_version() {
    case $1 in
    '' | *[!0-9A-Za-z.+-]* | [!0-9]*) fail 1 "\"$1\" is not a version" "${2-}" ;;
    esac
}

download() { # leaves the archive in $archive
    check_base
    has curl || has wget || fail 1 "this needs curl or wget, and neither is installed" \
        "install one, or use --local FILE"
    arch=$(cpu) || exit 1
    if [ -z "$wanted" ]; then
        fetch_list VERSION
        wanted=$(head -n 1 "$scratch/VERSION" | tr -d '\r')
    fi
    plain_version "$wanted" "check that $base has releases"
    too_old "$wanted"
    name=noports-$wanted-$arch
    archive=$scratch/$name.tar.gz
    fetch_list SHA256SUMS
    if must_be_signed; then
        fetch_list SHA256SUMS.minisig
        signed "$scratch/SHA256SUMS"
    fi
    grep -q "[ *]$name.tar.gz\$" "$scratch/SHA256SUMS" ||
        fail 1 "there is no $name.tar.gz at $base" "check the version: --version X"
    say "downloading $base/$name.tar.gz"
    fetch "$base/$name.tar.gz" "$archive" $ARCHIVE_BLOCKS $ARCHIVE_SECONDS
    verify "$scratch/SHA256SUMS"
}

verify() { # verify SUMS: stops unless the archive has its checksum there
    right=$(sed -n "s/^\([0-9a-fA-F]\{64\}\) [ *]$name.tar.gz\$/\1/p" "$1" | head -n 1 | tr A-F a-f)
    found=$(sha256 "$archive")
    [ -n "$found" ] || fail 1 "cannot check a SHA-256 checksum on this machine" "install coreutils, busybox or openssl"
    [ "$found" = "$right" ] || fail 1 "the checksum of $name.tar.gz is wrong; nothing was changed" \
        "try again; if it stays wrong, the file is not what was released"
}

take_local() {
    [ -f "$local" ] || fail 2 "there is no file $local" "--local FILE"
    archive=$local
    name=$(basename "$local" .tar.gz)
    sums=$(dirname "$local")/SHA256SUMS
    if must_be_signed; then
        signed "$sums"
    fi
    if [ -f "$sums" ]; then
        verify "$sums"
    else
        say "there is no $sums, so the checksum was not checked"
    fi
}

# --- signatures ---------------------------------------------------------------------------------------------------

# The key that is named counts; else the one that the last release here was signed with, for this script may come from the
# same server as a new one; else this script's.
check_key() {
    remembered=
    [ -n "$key" ] || [ ! -f "$home/public-key" ] || remembered=1 key=$(cat "$home/public-key")
    key=${key:-$PUBLIC_KEY}
    [ -n "$key" ] || return 0
    case $key in
    # A file that is called like the key is not the key.
    RW??????????????????????????????????????????????????????) file= ;;
    *) file=$key ;;
    esac
    if [ -f "$file" ]; then
        [ "$(wc -c <"$key")" -le 1000 ] || fail 2 "$key is no public key" "--public-key noports.pub"
        ! grep -qi 'secret key' "$key" || fail 2 "$key is a secret key, which belongs to nobody but its owner" \
            "--public-key noports.pub"
        key=$(tail -n 1 "$key")
    fi
    # "Ed", the key's number and the key: 42 bytes.
    case $key in
    *[!A-Za-z0-9+/]* | ??????????????????????????????????????????????????????????*) wrong=1 ;;
    RW??????????????????????????????????????????????????????) wrong= ;;
    *) wrong=1 ;;
    esac
    [ -z "$wrong" ] || fail 2 "that is no public key of minisign: $(printf %.60s "$key" | tr -cd 'A-Za-z0-9+/@._-')" \
        "--public-key RW…, or the file that holds it"
}

must_be_signed() {
    [ -z "$key" ] || [ -z "$unsigned" ] || say "the signature is not looked at"
    [ -n "$key" ] && [ -z "$unsigned" ]
}

signed() { # signed SUMS: stops unless SUMS.minisig was made with the key
    [ -f "$1.minisig" ] || fail 1 "there is no signature, $1.minisig; nothing was changed" "--no-signature if that is how you want it"
    with=$(checked "$1") || exit 1
    [ -n "$with" ] || fail 1 "nothing here can check a signature; nothing was changed" \
        "install minisign or signify; or --no-signature if that is how you want it"
    say "the signature is good, says $with"
}

bad_signature() {
    fail 1 "the signature of $(basename "$1") is not good; nothing was changed" \
        "it is not what was released, or signed with another key${remembered:+ than the version that is here}: --public-key K"
}

checked() { # checked SUMS: by what, if anything here can
    if has minisign; then
        minisign -Vqm "$1" -x "$1.minisig" -P "$key" >/dev/null 2>&1 || bad_signature "$1"
        echo minisign
        return 0
    fi
    # Elsewhere signify is another program: this one says what it found.
    printf 'untrusted comment: of noports\n%s\n' "$key" >"$scratch/key"
    for with in signify-openbsd signify; do
        has $with || continue
        case $($with -V -p "$scratch/key" -x "$1.minisig" -m "$1" 2>&1 </dev/null) in
        'Signature Verified') echo $with && return 0 ;;
        *'verification failed'* | *'wrong key'* | *'unsupported file'* | *'invalid'*) bad_signature "$1" ;;
        esac
    done
    if [ -n "$here" ]; then
        ended=0
        # One from before this word ends with 2.
        says=$("$target" verify "$1" --key "$key" 2>/dev/null) || ended=$?
        case $ended-$says in
        "0-signed: "*) echo "the noports that is here" && return 0 ;;
        10-*) bad_signature "$1" ;;
        esac
    fi
    case $(openssl version 2>/dev/null) in "OpenSSL "[3-9]*) by_openssl "$1" && echo openssl || bad_signature "$1" ;; esac
}

by_openssl() {
    # Both are "Ed", the key's number in 8 bytes, and what is wanted; before a key goes what a file of openssl begins with.
    {
        printf '\060\052\060\005\006\003\053\145\160\003\041\000'
        echo "$key" | openssl base64 -d -A | tail -c +11
    } >"$scratch/key.der"
    sed -n 2p "$1.minisig" | tr -d '\r\n' | openssl base64 -d -A >"$scratch/signature"
    [ "$(head -c 2 "$scratch/signature")" = Ed ] || return 1
    tail -c +11 "$scratch/signature" >"$scratch/signature.bare"
    openssl pkeyutl -verify -pubin -keyform DER -inkey "$scratch/key.der" -rawin -in "$1" \
        -sigfile "$scratch/signature.bare" >/dev/null 2>&1
}

too_old() {
    [ -z "$here" ] || [ -n "$downgrade" ] || ! older "$1" "$here" ||
        fail 1 "$1 is older than $here, which is installed" \
            "add --downgrade if you want it; for the previous version: --rollback"
}

# Whether what is here can build this: said before anything is written, and long before cargo would say it.
check_toolchain() {
    least=$(sed -n 's/^rust-version = "\([0-9.]*\)".*/\1/p' "$checkout/Cargo.toml")
    for tool in cargo rustc; do
        # "cargo 1.85.1 (…)"; nothing when it is not here, or when rustup has no toolchain for it.
        found=$("$tool" --version 2>/dev/null | sed -n "1s/^$tool \([0-9][^ ]*\).*/\1/p") || found=
        [ -n "$found" ] || fail 1 "building it needs $tool $least or later, which is not installed" "$(toolchain)"
        ! older "$found" "$least" ||
            fail 1 "building it needs $tool $least or later, and $(command -v "$tool") is $found" "$(toolchain)"
    done
    has cc || has gcc || has clang || fail 1 "building it needs a C compiler, which is not installed" "install gcc"
}

toolchain() { # the command that brings one new enough
    if has rustup; then
        echo "rustup default stable && rustup update stable"
    elif in_apt rustc-web "$least" && in_apt cargo-web "$least"; then
        echo "apt-get install rustc-web cargo-web (Debian's newer Rust)"
    elif in_apt rustup 0; then
        echo "apt-get install rustup && rustup default stable"
    else
        echo "install rustup (your package manager, or https://rustup.rs), then: rustup default stable"
    fi
}

in_apt() { # whether apt would install this package, in this version or a later one
    has apt-cache || return 1
    # "  Candidate: 1.96.0+dfsg1-1~deb12u2", or "(none)"; an epoch, and what Debian adds, are none of the version's numbers.
    candidate=$(LC_ALL=C apt-cache policy "$1" 2>/dev/null |
        sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9][0-9.]*\).*/\2/p') || return 1
    [ -n "$candidate" ] && ! older "$candidate" "$2"
}

build() {
    made_of=$(git -C "$checkout" describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null) || made_of=
    ( cd "$checkout" && NOPORTS_COMMIT=${made_of:-unknown} cargo build --release --locked ) || fail 1 "cannot build it" "see the errors of cargo above"
    built=${CARGO_TARGET_DIR:-$checkout/target}/release/noports
}

unpack() { # leaves the executable in $built
    needs tar gzip
    staged=$home/stage.$$
    mkdir "$staged" || fail 1 "cannot write to $home" "check the free space and the permissions"
    unpacks="cannot unpack $name.tar.gz below $prefix; nothing was changed"
    # Only the executable leaves the archive, whatever else is in it.
    inside=$(gzip -dc "$archive" 2>/dev/null | head -c $UNPACKED | tar -tf - 2>/dev/null |
        sed -n '/^[A-Za-z0-9_][^/]*\/noports$/{p;q;}') || inside=
    if [ -z "$inside" ]; then
        gzip -t "$archive" 2>/dev/null || fail 1 "$unpacks" "check that it is a release of noports"
        fail 1 "there is no noports in $name.tar.gz" "check that it is a release of noports"
    fi
    gzip -dc "$archive" | head -c $UNPACKED | ( cd "$staged" && tar -xf - "$inside" 2>/dev/null ) ||
        fail 1 "$unpacks" "check the free space, and that it is a release"
    built=$staged/$inside
    [ -f "$built" ] && [ ! -L "$built" ] || fail 1 "$inside in $name.tar.gz is no file; nothing was changed" \
        "check that it is a release of noports"
}

# --- putting it in place ----------------------------------------------------------------------------------------

install() {
    needs id mkdir mv cp rm ln sed awk cut tr head tail wc uname mktemp readlink
    case $0 in
    *install.sh) checkout=$(cd "$(dirname "$0")" && pwd) ;;
    *) checkout= ;;
    esac
    [ -n "$checkout" ] && grep -q '^name = "noports"' "$checkout/Cargo.toml" 2>/dev/null || checkout=
    here=$(version_here)
    must_be_ours "choose another place with --prefix, or replace it with --force"
    if [ -n "$dry" ]; then
        plan
        return 0
    fi
    check_key
    ! builds_here || check_toolchain
    lock
    scratch=$(mktemp -d) || fail 1 "no space in ${TMPDIR:-/tmp}" "free some space, or set TMPDIR to another folder"
    if [ -n "$local" ]; then
        take_local
        unpack
    elif builds_here; then
        build
    else
        download
        unpack
    fi
    place "$built"
}

builds_here() { [ -z "$local" ] && [ -n "$checkout" ] && [ "$base" = "$RELEASES" ] && [ -z "$wanted" ]; }

plan() {
    if [ -n "$local" ]; then
        from=$local
    elif builds_here; then
        from="$checkout (built there)"
    else
        check_base
        from="$base, version ${wanted:-that is newest}, for $(cpu)" || exit 1
    fi
    say "would install from $from"
    say "would write $target${here:+ (there is $here)}, links beside it: $LINKS"
    say "would keep what is there for --rollback in $home"
}

place() { # place FILE: makes it the installed one
    fresh=$bin/.noports.new.$$
    no_room="cannot write to $bin; nothing was changed"
    cp "$1" "$fresh" 2>/dev/null && chmod 755 "$fresh" || fail 1 "$no_room" "check the free space and the permissions"
    cmp -s "$1" "$fresh" 2>/dev/null || has_not cmp || fail 1 "$no_room" "check the free space"
    version=$("$fresh" --version 2>/dev/null | sed -n '1s/^noports //p') || version=
    [ -n "$version" ] || fail 1 "the new executable does not run on this machine; nothing was changed" \
        "check that it is for this processor ($(uname -m)), and that $bin is not mounted noexec"
    plain_version "$version"
    [ -z "$wanted" ] || [ "$wanted" = "$version" ] ||
        fail 1 "the archive of $wanted holds $version; nothing was changed" "tell whoever made the release"
    too_old "$version"
    sum=$(sha256 "$fresh")
    [ -n "$sum" ] || fail 1 "cannot make a SHA-256 checksum on this machine" "install coreutils, busybox or openssl"
    if [ -n "$here" ] && [ "$sum" = "$(sha256 "$target")" ]; then
        rm -f "$fresh"
        remember
        links
        say "noports $version is installed already"
        return 0
    fi
    keep_previous
    {
        echo "current $sum $version"
        [ -z "$here" ] || echo "previous $(sha256 "$target") $here"
    } >"$receipt.new" && mv -f "$receipt.new" "$receipt" || fail 1 "$no_room" "check the free space"
    sync "$fresh" 2>/dev/null || sync || :
    mv -f "$fresh" "$target" || fail 1 "$no_room" "check the permissions"
    fresh=
    remember
    links
    papers
    say "installed noports $version: $target${here:+ (before: $here, kept for --rollback)}"
    case :$PATH: in
    *":$bin:"*) ;;
    *) say "  $bin is not on your PATH yet: export PATH=\"$bin:\$PATH\"" ;;
    esac
    renew
}

# The next one has to be signed with the same key.
remember() { [ -z "$with" ] || echo "$key" >"$home/public-key"; }

has_not() { ! has "$1"; }

keep_previous() {
    [ -n "$here" ] || return 0
    rm -f "$home/previous.new"
    cp -p "$target" "$home/previous.new" && mv -f "$home/previous.new" "$home/previous" || {
        rm -f "$home/previous.new"
        fail 1 "no space below $prefix to keep the previous version; nothing was changed" "free some space there"
    }
}

links() {
    for link in $LINKS; do
        if [ -L "$bin/$link" ] && [ "$(readlink "$bin/$link")" = noports ]; then
            continue
        fi
        if [ -e "$bin/$link" ] || [ -L "$bin/$link" ]; then
            if [ -z "$force" ] || [ -d "$bin/$link" ]; then
                say "  $bin/$link belongs to another program, left alone (--force replaces it)"
                continue
            fi
        fi
        rm -f "$bin/.$link.new" && ln -s noports "$bin/.$link.new" && mv -f "$bin/.$link.new" "$bin/$link" ||
            say "  cannot make the link $bin/$link"
    done
}

# Manual pages and completions, which the program prints itself. It works without them, too.
papers() {
    "$target" docs all "$prefix/share" >"$home/papers.new" 2>/dev/null && mv -f "$home/papers.new" "$home/papers" ||
        rm -f "$home/papers.new"
}

# Services go on with the new version; sessions of a daemon are left alone by that. The program says whom it could not reach.
renew() {
    [ -n "$here" ] && [ -n "$restart" ] || return 0
    said=$("$target" service restart --after-upgrade ${own:+"$own"} 2>&1) || :
    [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/  /' >&2
    case $said in
    *'still runs'*) say "  whose it is restarts it: noports service restart; for services of users --all-users does that from here" ;;
    esac
}

rollback() {
    needs mv cp rm sed awk cut
    here=$(version_here)
    [ -f "$home/previous" ] || fail 1 "there is no previous version in $home" "to download one: --version X"
    if [ -n "$dry" ]; then
        say "would put back $("$home/previous" --version)"
        return 0
    fi
    must_be_ours "--force to replace it"
    [ ! -e "$target" ] || [ "$(sha256 "$target")" != "$(sha256 "$home/previous")" ] ||
        fail 1 "what was kept to go back to is the version that is here: an upgrade was cut off" "to download another: --version X"
    lock
    downgrade=1
    # A copy, because what is there now takes its place.
    staged=$home/stage.$$
    cp -p "$home/previous" "$staged" || fail 1 "no space left below $prefix" "free some space there"
    place "$staged"
}

# Folders that are empty now go, up to share.
no_empty() {
    folder=$1
    while [ "$folder" != "$prefix/share" ] && rmdir "$folder" 2>/dev/null; do
        folder=$(dirname "$folder")
    done
}

uninstall() {
    here=$(version_here)
    if [ ! -e "$target" ] && [ ! -e "$home" ]; then
        say "noports is not installed in $prefix"
        return 0
    fi
    must_be_ours "--force to remove it"
    if [ -n "$dry" ]; then
        say "would remove $target, its links, manual pages and completions, and $home"
        return 0
    fi
    lock
    if [ -e "$target" ]; then
        # Before it changes anything it says whose programs run from here.
        "$target" service uninstall ${own:+"$own"} ${force:+--force} >&2 || [ -n "$force" ] ||
            fail 1 "services still use $target, which is left as it is: see above" \
                "--all-users uninstalls those of users, too; --force leaves them, and they end with the next boot"
    fi
    for link in $LINKS; do
        [ ! -L "$bin/$link" ] || [ "$(readlink "$bin/$link")" != noports ] || rm -f "$bin/$link"
    done
    if [ -f "$home/papers" ]; then
        while read -r paper; do
            case $paper in "$prefix"/share/*) rm -f "$paper" && no_empty "$(dirname "$paper")" ;; esac
        done <"$home/papers"
    fi
    rm -f "$target" || fail 1 "cannot remove $target" "try sudo"
    rm -rf "$home"
    locked=
    say "removed noports from $prefix; keys and data stay in ~/.atsign and /var/lib/noports"
}

# --- a device in one line ---------------------------------------------------------------------------------------

check_device() { # before anything is downloaded
    as='' manager='' code=${NOPORTS_CODE-} codes='' run_as=${SUDO_USER-} keys='' roots=${NOPORTS_ROOT-} cas='' called='' kind=''
    while [ $# -gt 0 ]; do
        case $1 in
        --as | --manager | --policy | --code | --code-file | --run-as | --keys | --root | --ca | --device | --init)
            need "$@"
            case $1 in
            --as) as=$2 ;;
            --manager | --policy) manager=$2 ;;
            --code) code=$2 ;;
            --code-file) codes=$2 ;;
            --run-as) run_as=$2 ;;
            --keys) keys=$2 ;;
            --root) roots=$2 ;;
            --ca) cas=${cas:+$cas:}$2 ;;
            --device) called=$2 ;;
            --init) kind=$2 ;;
            esac
            shift
            ;;
        esac
        shift
    done
    [ -n "$as" ] || fail 2 "--as is missing: the atSign of the device" "device --as @device --manager @me --code XXXX"
    [ -n "$manager" ] || fail 2 "--manager is missing: the atSign that may use the device" \
        "device --as $as --manager @me"
    [ -n "$cas" ] || cas=${NOPORTS_CA-}
    [ -n "$root" ] || run_as=
    [ -z "$run_as" ] || id -u "$run_as" >/dev/null 2>&1 || fail 2 "there is no user $run_as here" "--run-as USER"
    [ -z "$codes" ] || [ -r "$codes" ] || fail 2 "cannot read $codes" "--code-file FILE"
}

quoted() { # each word for a shell
    for word; do
        printf " '%s'" "$(printf %s "$word" | sed "s/'/'\\\\''/g")"
    done
}

# As whom the daemon will run: the keys are his.
as_user() {
    if [ -z "$run_as" ] || [ "$(id -u "$run_as")" = "$(id -u)" ]; then
        "$@"
    else
        su -s /bin/sh "$run_as" -c "exec$(quoted "$@")"
    fi
}

# Is a service here somebody's own? Then it is he who installs it. (As noports daemon install finds out, too.)
personal() {
    case $kind in
    cron | systemd-user | launchd-user) return 0 ;;
    '') [ "$(uname -s)" = Linux ] || return 1 ;;
    *) return 1 ;;
    esac
    [ ! -e /run/systemd/system ] && [ ! -e /run/openrc ] && [ ! -e /sbin/procd ]
}

device() {
    if [ -n "$keys" ]; then
        file=$keys
        [ ! -d "$keys" ] || file=$keys/${as}_key.atKeys
    else
        # shellcheck disable=SC2016
        file=$(as_user sh -c 'echo "$HOME"')/.atsign/keys/${as}_key.atKeys
    fi
    if [ -e "$file" ]; then
        say "there are keys already: $file"
    else
        [ -z "$codes" ] || code=$(cat "$codes")
        [ -n "$code" ] || fail 2 "there are no keys of $as here, and no passcode to ask for them" \
            "on a device with keys: noports enroll otp $as; then --code XXXX here"
        say "asking for keys of $as; approve it on a device with keys: noports enroll approve $as"
        # The code travels in the environment: everybody could read it in the list of processes. (Below the environment is
        # as it was: the service shall have what stands there.)
        (
            NOPORTS_CODE=$code NOPORTS_ROOT=$roots NOPORTS_CA=$cas
            export NOPORTS_CODE
            [ -z "$roots" ] || export NOPORTS_ROOT
            [ -z "$cas" ] || export NOPORTS_CA
            as_user "$target" enroll "$as" ${called:+--device "$called"} ${keys:+--keys "$file"} >/dev/null
        ) || fail 1 "noports is installed, but there are no keys of $as yet" "run the same command again to continue"
        unset NOPORTS_CODE
    fi
    left=$#
    while [ "$left" -gt 0 ]; do
        word=$1
        shift
        left=$((left - 1))
        case $word in
        --code | --code-file | --run-as)
            shift
            left=$((left - 1))
            ;;
        *) set -- "$@" "$word" ;;
        esac
    done
    if [ -n "$run_as" ] && personal; then
        set -- as_user "$target" daemon install "$@"
    else
        set -- "$target" daemon install ${run_as:+--run-as "$run_as"} "$@"
    fi
    "$@" || fail $? "noports is installed, and the keys are here, but the daemon is not up" \
        "see above; then run the same command again, or: noports daemon install --as $as --manager $manager"
}

{ main "$@" && exit; }
