#!/bin/sh
# Makes the release files in dist/: for each kind of machine one executable that needs no library, no loader and no
# particular distribution, because musl and everything else is inside.
#
#   packaging/build-static.sh [--install-deps] [--rustup-add] [--out DIR] [--only-program] [--only-tools] [--symbols] [ARCH …]
#
#   dist/noports-VERSION-ARCH.tar.gz   the executable, its manual pages, LICENSE, README.md, what git tracks of packaging/
#   dist/noports-VERSION.cdx.json      bill of materials (CycloneDX)
#   dist/provenance.json               commit, toolchain and flags of each file (SLSA, as an in-toto statement)
#   dist/VERSION, dist/SHA256SUMS      what install.sh reads first; packaging/sign.sh puts SHA256SUMS.minisig beside them
#   dist/install.sh                    the same as here, so that the folder is all that a web server needs
#   target/static/ARCH/noports.symbols with --symbols this alone: the same code with names, for packaging/linked.py sizes
#   target/static/ARCH/noports         the executable alone (all that --only-program makes), and build.txt: how it was made
#
# The compiler is whatever knows the machine:
#   * rustc on PATH, when it has the target's standard library (rustup target add TARGET; --rustup-add does that);
#   * else a rustc whose standard library is there as source, which is then built too. Debian has one:
#     rustc-web cargo-web rust-web-src (--install-deps fetches them with apt-get).
# ARCH is x86_64, aarch64, armv7 and armv6, all four unless named; or riscv64, which is no release until somebody has run one.
# For FreeBSD and macOS nothing is built: these compilers bring no standard library for them, and nothing here could run the
# result. Three calls that only Linux has stand there without a fall-back: splice, TCP_USER_TIMEOUT and dumpable.
#
# C compiler, linker and musl are zig's, driven by cargo-zigbuild: PyPI's packages, those of tools.txt, in target/static/tools.
#
# The same commit and the same tools make the same bytes, wherever the checkout lies: packaging/twice.sh compares them.
set -eu
cd "$(dirname "$0")/.."

# Most bytes of one executable; x86_64 has the most.
BUDGET=8500000
# Functions without an #[inline] of their own are copied into their callers only below this size. Together with the small
# crates of Cargo.toml and a standard library without backtraces that takes a fifth off the file; the ciphers, whose inner
# loops are marked, are as fast as before.
SMALL="-C llvm-args=-inline-threshold=50"
# The program's own code is compiled for size. The last step, which sees all crates at once, is not: each function keeps
# what its crate asked for, but a last step for size would make AES take more than twice as long. Generic code is compiled
# where it is used, so the ciphers are a crate of their own.
OWN='profile.release.package.noports.opt-level="s"'
LAST="-C opt-level=3"

say() { printf '%s\n' "$*" >&2; }
die() {
    say "build-static: $*"
    exit 1
}

install=no
add=no
out=dist
all=yes
archs=
while [ $# -gt 0 ]; do
    case $1 in
    --install-deps) install=yes ;;
    --rustup-add) add=yes ;;
    --only-program) all=no ;;
    --only-tools) all=tools ;;
    --symbols) all=symbols ;;
    --out)
        [ $# -ge 2 ] || die "--out needs a folder"
        out=$2
        shift
        ;;
    x86_64 | aarch64 | armv7 | armv6 | riscv64) archs="$archs $1" ;;
    *) die "unknown: $1 (usage: see the top of this file)" ;;
    esac
    shift
done
archs=${archs:-x86_64 aarch64 armv7 armv6}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
# The time that all files carry: the commit's.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}
export SOURCE_DATE_EPOCH="$epoch" LC_ALL=C TZ=UTC
work=target/static
tools=$PWD/$work/tools
# What it says of itself: noports --version --verbose.
commit=$(git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)

triple() {
    case $1 in
    x86_64 | aarch64) echo "$1-unknown-linux-musl" ;;
    armv7) echo armv7-unknown-linux-musleabihf ;;
    armv6) echo arm-unknown-linux-musleabihf ;;
    riscv64) echo riscv64gc-unknown-linux-musl ;;
    esac
}

# --- tools -----------------------------------------------------------------------------------------------------------

packages() {
    missing=
    command -v readelf >/dev/null || missing="$missing binutils"
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3 python3-venv"
    [ "$1" = no ] || missing="$missing $1"
    [ -n "$missing" ] || return 0
    [ $install = yes ] || die "needs:$missing (--install-deps fetches them with apt-get)"
    root=
    [ "$(id -u)" = 0 ] || root=sudo
    $root apt-get update -q >&2
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
}

zig() {
    packaging/tools.sh
    PATH=$tools/bin:$PATH
}

has_std() {
    libdir=$(rustc --print target-libdir --target "$1" 2>/dev/null) && ls "$libdir"/libstd-*.rlib >/dev/null 2>&1
}
std_source() { readlink -f "$("$1" --print sysroot)/lib/rustlib/src/rust" 2>/dev/null; }
builds_std() { [ -x "$1" ] && [ -f "$(std_source "$1")/library/Cargo.lock" ]; }

# A file that may lie anywhere in memory lists the places to mend at its start: 24 bytes each, or packed, a few bits each. zig's
# driver does not know the option, but the linker inside it does, and musl's start code mends either. So: link as zig
# would, and once more with the line that it tells, and the option.
packed_linker() {
    cat >"$tools/packed-linker" <<'END'
#!/bin/sh
set -eu
line=$(ZIG_VERBOSE_LINK=1 "$CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER" "$@" 2>&1 | sed -n 's/^ld\.lld \(.* -pie .*\)/\1/p')
[ -n "$line" ] || { echo "packed-linker: zig does not tell how it links" >&2; exit 1; }
# shellcheck disable=SC2086
exec python-zig ld.lld $line --pack-dyn-relocs=relr
END
    chmod +x "$tools/packed-linker"
}

# Sets rustc, cargo, and how: prebuilt or source.
choose() {
    rustc=$(command -v rustc || true)
    cargo=$(command -v cargo || true)
    how=prebuilt
    if [ -n "$rustc" ] && has_std "$1"; then return; fi
    if [ $add = yes ]; then
        rustup target add "$1" >&2
        return
    fi
    how=source
    if [ -n "$rustc" ] && builds_std "$(rustc --print sysroot)/bin/rustc"; then return; fi
    rustc=/usr/bin/rustc
    cargo=/usr/bin/cargo
    builds_std $rustc || packages "rustc-web cargo-web rust-web-src"
    builds_std $rustc || die "no compiler for $1: run 'rustup target add $1', or give --install-deps on Debian"
}

# --- one executable --------------------------------------------------------------------------------------------------

build() {
    arch=$1
    target=$(triple "$arch")
    choose "$target"
    say "== $arch: $target, $("$rustc" -V), standard library: $how"
    # Fetch first: the folder that is to be left out of the file has to be known.
    RUSTC=$rustc "$cargo" fetch -q --locked --target "$target"
    flags="$SMALL --remap-path-prefix=$PWD=noports"
    for folder in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
        flags="$flags --remap-path-prefix=$folder=crates"
    done
    set -- --release --locked --bin noports --target "$target" --target-dir "$work"
    if [ $how = source ]; then
        flags="$flags -C link-self-contained=no --remap-path-prefix=$(std_source "$rustc")=rust"
        # The file carries no symbols, so a backtrace would be numbers: std is built without the code for it.
        set -- -Zbuild-std=std,panic_unwind -Zbuild-std-features=panic-unwind,optimize_for_size "$@"
    fi
    # zig overlooks -static-pie, so the last link of a standard library built here asks again. Elsewhere rustc's default is
    # an ordinary executable.
    last=$LAST
    case $how-$arch in
    source-x86_64)
        packed_linker
        last="$last -C link-arg=-pie -C linker=$tools/packed-linker"
        ;;
    esac
    [ $all != symbols ] || last="$last -C strip=none"
    # shellcheck disable=SC2086
    set -- rustc --config "$OWN" --message-format json-render-diagnostics "$@" -- $last
    mkdir -p "$work/$arch"
    (
        [ $how = prebuilt ] || export RUSTC_BOOTSTRAP=1
        export RUSTC="$rustc" CARGO="$cargo" RUSTFLAGS="$flags" NOPORTS_COMMIT="$commit" NOPORTS_TARGET="$target"
        "$tools/bin/cargo-zigbuild" "$@" >"$work/$arch/linked.json"
    )
    if [ $all = symbols ]; then
        cp "$work/$target/release/noports" "$work/$arch/noports.symbols"
        return
    fi
    file=$work/$arch/noports
    cp "$work/$target/release/noports" "$file"
    told "$file" >"$work/$arch/build.txt"
    inspect "$arch" "$file"
}

# How it was made, for sbom.py and provenance.py.
told() {
    zig=$("$tools/bin/python-zig" version)
    zigs=$(ls -d "$tools"/lib/python3*/site-packages/ziglang/lib)
    std_source=
    [ $how = prebuilt ] || std_source=$(std_source "$rustc")
    cat <<END
arch=$arch
target=$target
sha256=$(sha256sum <"$1" | cut -d ' ' -f 1)
commit=$commit
rustc=$("$rustc" -V | cut -d ' ' -f 2)
rustc_commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
cargo=$("$cargo" -V | cut -d ' ' -f 2)
std=$how
zig=$zig
zigbuild=$("$tools/bin/cargo-zigbuild" -V | cut -d ' ' -f 2)
musl=$(sed -n 's/^#define VERSION "\(.*\)"/\1/p' "$zigs/libc/musl/src/internal/version.h")
flags=$(printf %s "$flags" | sed "s|=$PWD=|=CHECKOUT=|; s|=${CARGO_HOME:-$HOME/.cargo}/|=CARGO_HOME/|g")
config=$OWN
last=$(printf %s "$last" | sed "s|$PWD/|CHECKOUT/|")
rustc_path=$rustc
cargo_path=$cargo
std_source=$std_source
END
}

inspect() {
    if readelf -lW "$2" | grep -q INTERP; then die "$2 asks for a loader"; fi
    if readelf -dW "$2" | grep -q NEEDED; then die "$2 asks for a library"; fi
    for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}" "$tools"; do
        if grep -aqF -e "$path" "$2"; then die "$2 tells where it was built: $path"; fi
    done
    if grep -aqF NOPORTS_GENERATION "$2"; then die "$2 can be held to an older generation: built with the feature held?"; fi
    size=$(wc -c <"$2")
    [ "$size" -le $BUDGET ] || die "$2 has $size bytes, $BUDGET are allowed"
    say "   static, $size bytes"
    case $(uname -m)-$1 in
    x86_64-x86_64 | aarch64-aarch64 | armv7l-armv7 | armv*-armv6) run= ;;
    *-aarch64) run="qemu-aarch64-static -cpu cortex-a53" ;;
    *-armv7) run="qemu-arm-static -cpu cortex-a7" ;;
    *-armv6) run="qemu-arm-static -cpu arm1176" ;;
    *-riscv64) run=qemu-riscv64-static ;;
    *) run=nothing ;;
    esac
    if [ -n "$run" ] && ! command -v "${run%% *}" >/dev/null; then
        say "   not run: there is no ${run%% *}"
        return
    fi
    $run "$2" selftest >&2 || die "$2 does not work"
}

# --- what is shipped -------------------------------------------------------------------------------------------------

packages no
zig
if [ $all = tools ]; then
    packaging/tools.sh --boms
    for arch in $archs; do choose "$(triple "$arch")"; done
    exit
fi
for arch in $archs; do build "$arch"; done
[ $all = yes ] || exit 0
mkdir -p "$out"
runs=
for arch in $archs; do [ "$(uname -m)" != "$arch" ] || runs=$work/$arch/noports; done
# shellcheck disable=SC2086
for arch in $archs; do packaging/archive.sh "$work/$arch/noports" "$version" "$arch" "$out" $runs; done
builds=$(for arch in $archs; do echo "$work/$arch"; done)
# shellcheck disable=SC2086
python3 packaging/sbom.py make "$version" "$epoch" $builds >"$out/noports-$version.cdx.json"
packaging/tools.sh --boms
# shellcheck disable=SC2086
"$tools/bin/python" packaging/sbom.py check "$out/noports-$version.cdx.json" $builds >&2
printf '%s\n' "$version" >"$out/VERSION"
cp install.sh "$out/"
rm -f "$out/SHA256SUMS" "$out/SHA256SUMS.minisig" "$out/provenance.json"
# shellcheck disable=SC2086
python3 packaging/provenance.py "$out" "$version" "$epoch" $builds >"$work/provenance.new"
mv "$work/provenance.new" "$out/provenance.json"
(
    cd "$out"
    sha256sum ./* | sed 's|\./||' >"$OLDPWD/$work/SHA256SUMS.new"
)
mv "$work/SHA256SUMS.new" "$out/SHA256SUMS"
# A web server reads it, whatever this one's umask.
chmod 755 "$out"
chmod 644 "$out"/*
cat "$out/SHA256SUMS"
