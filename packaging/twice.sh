#!/bin/sh
# Makes a release twice, and compares every byte: packaging/twice.sh [ARCH]      (default: this machine's)
#
# The second one is made in another folder, with another umask, time zone, language, temporary folder and cache of zig's (so musl
# is compiled again), from a copy of the files that git tracks as they are now. Both at once: the last step of each uses one core.
# What is compared: the executable, the archive, the bill of materials, the provenance, the checksums. The same on both sides are
# this machine's compilers, and the sources of the crates. Leaves the first in dist/, and target/static/ARCH as after build-static.sh.
set -eu
cd "$(dirname "$0")/.."

die() {
    printf 'twice: %s\n' "$*" >&2
    exit 1
}

arch=${1:-$(uname -m)}
git rev-parse --git-dir >/dev/null 2>&1 || die "this is no checkout"
packaging/build-static.sh --install-deps --only-tools "$arch"

other=$(mktemp -d)/another-place
trap 'rm -rf "${other%/*}"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$other"
git clone -q --shared . "$other/checkout"
git ls-files -z --deleted >"$other/deleted"
git ls-files -z | sort -z | comm -z -23 - "$other/deleted" | tar --null -T - -cf - | tar -C "$other/checkout" -xf -
(cd "$other/checkout" && xargs -0 -r rm -f <"$other/deleted")
mkdir "$other/tmp"

rm -rf dist
packaging/build-static.sh "$arch" >"$other/first.log" 2>&1 &
first=$!
(
    umask 077
    export TZ=Asia/Kathmandu LC_ALL=C.UTF-8 LANG=C.UTF-8 TMPDIR="$other/tmp" ZIG_GLOBAL_CACHE_DIR="$other/zig"
    export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}"
    cd "$other/checkout"
    packaging/build-static.sh "$arch"
) >"$other/second.log" 2>&1 &
second=$!
failed=
wait $first || failed=1
cat "$other/first.log"
wait $second || failed=2
[ "$failed" != 2 ] || tail -n 40 "$other/second.log"
[ -z "$failed" ] || die "build $failed failed"

cmp target/static/"$arch"/noports "$other/checkout/target/static/$arch/noports" || die "the executables differ"
diff -r dist "$other/checkout/dist" || die "the releases differ"
for file in dist/*; do
    theirs=$other/checkout/$file
    [ "$(stat -c %a "$file")" = "$(stat -c %a "$theirs")" ] ||
        die "$file has mode $(stat -c %a "$file"), and $(stat -c %a "$theirs") where the umask was 077"
done
set -- dist/*
[ $# -ge 6 ] || die "only $# files in dist"
echo "made twice: $# files, the same bytes"
